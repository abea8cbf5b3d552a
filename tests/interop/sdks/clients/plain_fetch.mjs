// Node's own fetch.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ATTACHE, forEachUser, GONE, UPSTREAM } from './common.mjs';

await forEachUser(async (user, login) => {
  // docs: begin
  const call = (path, more = {}) => fetch(`${ATTACHE}/echo${path}`, { ...more, headers: { ...more.headers, 'X-End-User': user } });
  const me = await (await call('/api/me')).json();
  // docs: end
  assert.equal(me.user, login);
  assert.ok(!me.headers.includes('x-end-user'));
  const got = await call('/api/bytes');
  assert.equal(createHash('sha256').update(Buffer.from(await got.arrayBuffer())).digest('hex'), got.headers.get('digest'));
  const chunks = new ReadableStream({ start: (to) => [1, 2, 3].forEach(() => to.enqueue(new Uint8Array(50_000))) || to.close() });
  const sent = await call('/api/upload', { method: 'POST', body: chunks, duplex: 'half' });
  assert.deepEqual([sent.status, (await sent.json()).size], [201, 150_000]);
  const items = [];
  for (let link = `${UPSTREAM}/api/pages`; link; ) {
    const page = await (await call(link.replace(UPSTREAM, ''))).json();
    items.push(...page.items);
    link = page.next;
  }
  assert.deepEqual(items, [0, 1, 2].map((n) => `${login}-${n}`));
  const busy = await call('/api/busy');
  assert.deepEqual([busy.status, busy.headers.get('retry-after')], [429, '7']);
  const refused = await fetch(`${ATTACHE}/echo/api/me`, { headers: { 'X-End-User': GONE } });
  assert.deepEqual([refused.status, await refused.json()], [401, { error: 'invalid_token' }]);
});
