// ws: the handshake carries the token, and both ends are the real ones.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import { ATTACHE, forEachUser, GONE } from './common.mjs';

// docs: begin
const open = (endUser) => new WebSocket(`${ATTACHE.replace('http:', 'ws:')}/live/events?x=1`, ['photos.v1'], { headers: { 'X-End-User': endUser } });
// docs: end

await forEachUser(async (user, login) => {
  const socket = open(user);
  const [hello] = await once(socket, 'message');
  assert.deepEqual([JSON.parse(hello), socket.protocol], [{ hello: login }, 'photos.v1']);
  for (const message of ['hello', Buffer.alloc(256, 7), 'ü'.repeat(70_000)]) {
    socket.send(message);
    const [back, isBinary] = await once(socket, 'message');
    assert.ok(back.equals(Buffer.from(message)) && isBinary === Buffer.isBuffer(message));
  }
  socket.ping('are you there');
  assert.equal(String((await once(socket, 'pong'))[0]), 'are you there');
  socket.send('bye');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, String(reason)], [4001, `bye ${login}`]);

  const refused = open(GONE);
  refused.on('error', () => {});
  const [, answer] = await once(refused, 'unexpected-response');
  assert.equal(answer.statusCode, 401);
  refused.terminate();
});
