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

  'resource-indicator': async (world) => {
    const told = await connectsAndRefreshes(world, 'oidc-resource');
    assert.equal(told.aud, RESOURCE);
  },
};
