// The ways a client proves itself and makes its request, beyond the usual one.

import { RESOURCE } from '../oidc-provider/clients.mjs';
import { TTL_S } from '../rig/world.mjs';
import { assert, callsAs, landedAtApp, sleep } from './check.mjs';

async function connectsAndRefreshes(world, provider) {
  const { attache, app } = world;
  await attache.add(provider);
  const endUser = `megan+${provider}@personalemail.com`;
  const { landed } = await world.connect({ provider, endUser });
  landedAtApp(landed, { app, status: 'connected', provider });
  const first = await callsAs(attache, provider, endUser, 'megan');
  await sleep((TTL_S + 1) * 1000);
  await callsAs(attache, provider, endUser, 'megan');
  return first;
}

export const scenarios = {
  'pushed-authorization-request': async (world) => {
    const before = await world.oidc.counters();
    await connectsAndRefreshes(world, 'oidc-par');
    const after = await world.oidc.counters();
    assert.ok(after.par_requests > before.par_requests, 'nothing was pushed');
  },

  'private-key-jwt': async (world) => {
    await connectsAndRefreshes(world, 'oidc-key');
  },

  'dpop-bound-tokens': async (world) => {
    const before = await world.oidc.counters();
    const [first, second] = [await connectsAndRefreshes(world, 'oidc-dpop'), await connectsAndRefreshes(world, 'oidc-dpop-native')];
    assert.ok(first.jkt && second.jkt && first.jkt !== second.jkt, 'each connection has a key of its own');
    const after = await world.oidc.counters();
    assert.equal(after.proofs - before.proofs, 4, 'proofs that hold');
    assert.ok(after.nonces_wanted - before.nonces_wanted <= 2, 'the nonce is known after the first call, over a refresh too');
    // As the app itself.
    await world.attache.add(['oidc-dpop-app', 'app']);
    const keys = new Set();
    for (const _ of [1, 2]) {
      const answer = await world.attache.call('/oidc-dpop-app/me');
      assert.equal(answer.status, 200, answer.text);
      keys.add(answer.json.jkt);
      await sleep((TTL_S + 1) * 1000);
    }
    assert.equal(keys.size, 1, 'one key over both tokens');
    assert.ok(!keys.has(null));
  },

  'resource-indicator': async (world) => {
    const told = await connectsAndRefreshes(world, 'oidc-resource');
    assert.equal(told.aud, RESOURCE);
  },
};
