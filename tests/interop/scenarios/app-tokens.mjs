// Tokens that no end user's browser granted: the app's own, asserted ones, exchanged ones.

import { TTL_S } from '../rig/world.mjs';
import { assert, callsAs, sleep } from './check.mjs';

async function appCalls(world, provider, id) {
  const answer = await world.attache.call(`/${provider}/me`);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.json.sub, null);
  assert.equal(answer.json.client_id, id);
}

export const scenarios = {
  'client-credentials': async (world) => {
    for (const provider of ['oidc-app', 'authlib-app']) {
      await world.attache.add([provider, 'app']);
      await Promise.all(Array.from({ length: 10 }, () => appCalls(world, provider, provider)));
      await sleep((TTL_S + 1) * 1000);
      await appCalls(world, provider, provider);
    }
    const counters = await world.oidc.counters();
    assert.ok(counters.grants.client_credentials <= 4, `${counters.grants.client_credentials} tokens for two lives`);
  },

  'jwt-bearer': async (world) => {
    await world.attache.add('authlib-jwt');
    for (const endUser of ['megan@personalemail.com', 'robin@personalemail.com']) {
      const told = await callsAs(world.attache, 'authlib-jwt', endUser, endUser);
      assert.equal(told.grant_type, 'urn:ietf:params:oauth:grant-type:jwt-bearer');
    }
  },

  'token-exchange': async (world) => {
    await world.attache.add('authlib-exchange');
    const endUser = 'megan+exchange@personalemail.com';
    await world.connect({ provider: 'authlib-post', endUser });
    const told = await callsAs(world.attache, 'authlib-exchange', endUser, 'megan');
    assert.equal(told.client_id, 'authlib-exchange');
    await sleep((TTL_S + 1) * 1000);
    await callsAs(world.attache, 'authlib-exchange', endUser, 'megan');
  },
};
