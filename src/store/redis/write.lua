-- One batch: judges every expectation on what stands, then writes all, counts and tells it; or does nothing.
-- KEYS: the record and then its kind's index, for each write; then the count of changes.
-- ARGV: who writes, the channel, then for each write: kind, key, expectation ("any", "absent" or a version), 1 or 0 for a value, the value.
local staged, order, versions, told = {}, {}, {}, {}
local writes = (#KEYS - 1) / 2
for i = 1, writes do
  local record, at = KEYS[2 * i - 1], 2 + 5 * (i - 1)
  local kind, key, expected, has_value, value = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local now = staged[record]
  if now == nil then
    now = { version = redis.call('HGET', record, 'v') or false, index = KEYS[2 * i], key = key }
    staged[record] = now
    order[#order + 1] = record
  end
  if expected == 'absent' then
    if now.version then return false end
  elseif expected ~= 'any' and now.version ~= expected then
    return false
  end
  if has_value == '1' then
    now.version = string.format('%.0f', (now.version and tonumber(now.version) or 0) + 1)
    now.value = value
    versions[i] = now.version
    told[#told + 1] = kind .. ':' .. now.version .. ':' .. key
  else
    -- Nothing where nothing was: that is no change.
    versions[i] = now.version and '0' or ''
    if now.version then told[#told + 1] = kind .. '::' .. key end
    now.version, now.value = false, nil
  end
end
for _, record in ipairs(order) do
  local now = staged[record]
  if now.version then
    redis.call('HSET', record, 'v', now.version, 'd', now.value)
    redis.call('ZADD', now.index, 0, now.key)
  else
    redis.call('DEL', record)
    redis.call('ZREM', now.index, now.key)
  end
end
for _, change in ipairs(told) do
  local place = redis.call('INCR', KEYS[#KEYS])
  redis.call('PUBLISH', ARGV[2], ARGV[1] .. ':' .. string.format('%.0f', place) .. ':' .. change)
end
return versions
