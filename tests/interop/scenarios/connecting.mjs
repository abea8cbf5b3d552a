// The ways a person connects that end well, or by the person's own no.

import { TTL_S } from '../rig/world.mjs';
import { assert, callsAs, landedAtApp, notConnected, sleep } from './check.mjs';

export const scenarios = {
  'connect-and-refresh': async (world) => {
    const { attache, app, oidc } = world;
    const endUser = 'megan@personalemail.com';
    await notConnected(attache, 'oidc-basic', endUser);
    const person = await world.person();
    const link = await attache.link({ end_user: endUser, providers: ['oidc-basic'], return_url: app.returnUrl });
    assert.equal(await person.open(link.connect_url), 200);
    await person.shoot('confirm');
    const text = await person.page.locator('body').innerText();
    for (const said of ['PrintPixie', 'Lakeside Photos', endUser]) assert.ok(text.includes(said), `the page does not say ${said}`);
    await person.choose('oidc-basic');
    await person.agree('megan');
    landedAtApp(new URL(person.page.url()), { app, status: 'connected', provider: 'oidc-basic' });
    const connection = await attache.connection('oidc-basic', endUser);
    assert.equal(connection.state, 'active');
    await callsAs(attache, 'oidc-basic', endUser, 'megan');

    // Three lives of the token, with calls in between and many at once at the end of each.
    const before = await oidc.counters();
    for (let life = 0; life < 3; life += 1) {
      await sleep((TTL_S + 1) * 1000);
      await Promise.all(Array.from({ length: 20 }, () => callsAs(attache, 'oidc-basic', endUser, 'megan')));
    }
    const after = await oidc.counters();
    const refreshes = (after.grants.refresh_token ?? 0) - (before.grants.refresh_token ?? 0);
    assert.ok(refreshes >= 3 && refreshes <= 6, `${refreshes} refreshes in three lives`);
    assert.equal(after.reuse_detected, 0, 'a rotated refresh token was used twice');
  },

  'connect-at-the-second-server': async (world) => {
    const { attache, app, authlib } = world;
    const endUser = 'megan+valley@personalemail.com';
    const { landed } = await world.connect({ provider: 'authlib-post', endUser });
    landedAtApp(landed, { app, status: 'connected', provider: 'authlib-post' });
    await callsAs(attache, 'authlib-post', endUser, 'megan');
    for (let life = 0; life < 2; life += 1) {
      await sleep((TTL_S + 1) * 1000);
      await Promise.all(Array.from({ length: 20 }, () => callsAs(attache, 'authlib-post', endUser, 'megan')));
    }
    const counters = await authlib.counters();
    assert.ok(counters.grants.refresh_token >= 2, `${counters.grants.refresh_token} refreshes in two lives`);
    assert.equal(counters.reuse_detected, 0, 'a rotated refresh token was used twice');
  },

  'basic-at-the-second-server': async (world) => {
    await world.attache.add('authlib-basic');
    const endUser = 'megan+basic@personalemail.com';
    await world.connect({ provider: 'authlib-basic', endUser });
    await callsAs(world.attache, 'authlib-basic', endUser, 'megan');
  },

  'no-return-url': async (world) => {
    const endUser = 'megan+page@personalemail.com';
    const { person } = await world.connect({ provider: 'oidc-post', endUser, return_url: undefined });
    assert.equal(person.landed, 200);
    assert.equal(new URL(person.page.url()).origin, world.attache.publicUrl);
    await person.shoot('connected');
    await callsAs(world.attache, 'oidc-post', endUser, 'megan');
  },

  'choice-of-two': async (world) => {
    const { attache, app } = world;
    const endUser = 'megan+choice@personalemail.com';
    const person = await world.person();
    const link = await attache.link({ end_user: endUser, providers: ['oidc-basic', 'authlib-post'], return_url: app.returnUrl });
    assert.equal(await person.open(link.connect_url), 200);
    await person.shoot('choose');
    assert.equal(await person.page.locator('button[name=provider]').count(), 2);
    await person.choose('authlib-post');
    await person.agree('megan');
    landedAtApp(new URL(person.page.url()), { app, status: 'connected', provider: 'authlib-post' });
    await callsAs(attache, 'authlib-post', endUser, 'megan');
    assert.equal(await attache.connection('oidc-basic', endUser), null);
  },

  'consent-denied': async (world) => {
    const { attache, app } = world;
    const endUser = 'megan+no@personalemail.com';
    for (const provider of ['oidc-basic', 'authlib-post']) {
      const person = await world.person();
      const link = await attache.link({ end_user: endUser, providers: [provider], return_url: app.returnUrl });
      await person.open(link.connect_url);
      await person.choose(provider);
      await person.deny();
      landedAtApp(new URL(person.page.url()), { app, status: 'denied', provider });
      assert.equal(await attache.connection(provider, endUser), null);
    }
    const person = await world.person();
    const link = await attache.link({ end_user: endUser, providers: ['oidc-basic'] });
    await person.open(link.connect_url);
    await person.choose('oidc-basic');
    await person.deny();
    assert.equal(person.landed, 200);
    await person.shoot('denied');
    await notConnected(attache, 'oidc-basic', endUser);
  },

  'second-account': async (world) => {
    const { attache } = world;
    const endUser = 'megan+two@personalemail.com';
    await world.connect({ provider: 'oidc-basic', endUser, login: 'megan-at-home' });
    await world.connect({ provider: 'oidc-basic', endUser, login: 'megan-at-work', account: 'work' });
    await callsAs(attache, 'oidc-basic', endUser, 'megan-at-home');
    await callsAs(attache, 'oidc-basic', endUser, 'megan-at-work', { account: 'work' });
    await notConnected(attache, 'oidc-basic', endUser, { account: 'other' });
    assert.equal((await attache.connection('oidc-basic', endUser, 'work')).account, 'work');
  },
};
