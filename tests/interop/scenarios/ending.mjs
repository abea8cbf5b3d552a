// The end of a connection: here, and at the provider.

import { TTL_S } from '../rig/world.mjs';
import { assert, callsAs, eventually, notConnected, sleep } from './check.mjs';

export const scenarios = {
  disconnect: async (world) => {
    for (const [server, provider] of [[world.oidc, 'oidc-basic'], [world.authlib, 'authlib-post']]) {
      const { attache } = world;
      const endUser = 'megan+leaves@personalemail.com';
      await world.connect({ provider, endUser });
      const authorization = await tokenOf(world, provider, endUser);
      assert.ok(await server.takes(authorization), 'the token does not open the API');
      const answer = await attache.admin('DELETE', `/v1/connections/${provider}/${encodeURIComponent(endUser)}`);
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.revoked, 'yes', answer.text);
      assert.ok(!(await server.takes(authorization)), 'the token lives on at the provider');
      await notConnected(attache, provider, endUser);
      assert.equal(await attache.connection(provider, endUser), null);
    }
  },

  'revoked-at-the-provider': async (world) => {
    const { attache } = world;
    const endUser = 'megan+revokes@personalemail.com';
    await world.connect({ provider: 'oidc-basic', endUser, login: 'megan-revokes' });
    await world.oidc.takeBack('megan-revokes');
    await sleep((TTL_S + 1) * 1000);
    const answer = await attache.call('/oidc-basic/me', endUser);
    assert.equal(answer.status, 401, answer.text);
    assert.equal(answer.json.type, 'urn:attache:reconnect-required', answer.text);
    await eventually(() => attache.connection('oidc-basic', endUser), (found) => found.state === 'reconnect_required', 5000, 'the connection');
    await world.connect({ provider: 'oidc-basic', endUser });
    await callsAs(attache, 'oidc-basic', endUser, 'megan');
  },
};

/** The header that a call through the proxy carries, as the API saw it. */
async function tokenOf(world, provider, endUser) {
  const answer = await world.attache.call(`/${provider}/api/echo`, endUser);
  assert.equal(answer.status, 200, answer.text);
  return answer.json.headers.authorization;
}
