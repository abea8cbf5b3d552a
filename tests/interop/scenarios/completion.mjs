// `complete: "app"`: the app, which knows who is logged in, has the last word.

import { assert, callsAs, landedAtApp, notConnected } from './check.mjs';

async function pending(world, endUser) {
  const provider = 'oidc-basic';
  const { landed, link, person } = await world.connect({ provider, endUser, complete: 'app' });
  landedAtApp(landed, { app: world.app, status: 'connected', provider });
  const completion = landed.searchParams.get('completion');
  assert.ok(completion, `no completion in ${landed}`);
  const connection = await world.attache.connection(provider, endUser);
  assert.equal(connection?.state, 'pending');
  await notConnected(world.attache, provider, endUser);
  return { path: `/v1/connect-sessions/${link.session}/complete`, completion, person };
}

export const scenarios = {
  'app-completes': async (world) => {
    const { attache } = world;
    const endUser = 'megan+app@personalemail.com';
    const { path, completion } = await pending(world, endUser);
    const answer = await attache.admin('POST', path, { completion, end_user: endUser });
    assert.equal(answer.status, 200, answer.text);
    assert.equal((await attache.connection('oidc-basic', endUser)).state, 'active');
    await callsAs(attache, 'oidc-basic', endUser, 'megan');
    const again = await attache.admin('POST', path, { completion, end_user: endUser });
    assert.equal(again.status, 404, again.text);
  },

  'app-completes-for-somebody-else': async (world) => {
    const { attache, oidc } = world;
    const endUser = 'megan+lured@personalemail.com';
    const { path, completion } = await pending(world, endUser);
    const before = await oidc.counters();
    const answer = await attache.admin('POST', path, { completion, end_user: 'robin@personalemail.com' });
    assert.equal(answer.status, 403, answer.text);
    assert.ok((await oidc.counters()).revoked > before.revoked, 'the grant lives on at the provider');
    for (const name of [endUser, 'robin@personalemail.com']) assert.equal(await attache.connection('oidc-basic', name), null);
    const late = await attache.admin('POST', path, { completion, end_user: endUser });
    assert.equal(late.status, 404, late.text);
    await notConnected(attache, 'oidc-basic', endUser);
  },
};
