-- Keys in their order with their records, at one moment.
-- KEYS: the index. ARGV: what records' names begin with, from, to, the most.
local found = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])) do
  local record = redis.call('HMGET', ARGV[1] .. key, 'v', 'd')
  if record[1] then
    found[#found + 1] = key
    found[#found + 1] = record[1]
    found[#found + 1] = record[2]
  end
end
return found
