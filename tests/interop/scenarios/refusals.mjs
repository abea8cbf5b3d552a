// What must not end in a connection: other browsers, used and borrowed answers, providers that fail.

import { send } from '../rig/http.mjs';
import { assert, callsAs, landedAtApp, notConnected } from './check.mjs';

/** How long a provider that does not answer may keep a browser waiting. */
const HANG_WITHIN_MS = 50_000;

/** Opens the link, agrees, and stops before the callback. */
async function upToCallback(world, person, { provider, endUser, login, ...more }) {
  const link = await world.attache.link({ end_user: endUser, providers: [provider], ...more });
  assert.equal(await person.open(link.connect_url), 200);
  await person.choose(provider);
  const callback = await person.heldCallback(() => person.agree(login));
  return { link, callback };
}

const tokenRequests = async (server) => (await server.counters()).token_requests;

export const scenarios = {
  'second-browser': async (world) => {
    const { attache, oidc } = world;
    const endUser = 'megan+first@personalemail.com';
    const [first, second] = [await world.person(), await world.person()];
    const { link, callback } = await upToCallback(world, first, { provider: 'oidc-basic', endUser });
    const before = await tokenRequests(oidc);
    assert.equal(await second.open(link.connect_url), 403, 'the link in a second browser');
    await second.shoot('other-browser');
    assert.equal(await second.open(callback.url), 403, 'the callback in a second browser');
    assert.equal(await tokenRequests(oidc), before, 'the second browser spent the code');
    assert.equal(await attache.connection('oidc-basic', endUser), null);
    assert.equal(await first.open(callback.url), 200, 'the first browser cannot finish any more');
    await callsAs(attache, 'oidc-basic', endUser, 'megan');
  },

  'replayed-callback': async (world) => {
    const { oidc, attache } = world;
    const endUser = 'megan+again@personalemail.com';
    const person = await world.person();
    const { link, callback } = await upToCallback(world, person, { provider: 'oidc-basic', endUser });
    assert.equal(await person.open(callback.url), 200);
    const before = await oidc.counters();
    assert.equal(await person.open(callback.url), 410, 'the callback a second time');
    await person.shoot('gone');
    assert.equal(await person.open(link.connect_url), 410, 'the link after it was used');
    const after = await oidc.counters();
    assert.equal(after.token_requests, before.token_requests, 'the code was sent twice');
    assert.equal(after.reuse_detected, before.reuse_detected);
    await callsAs(attache, 'oidc-basic', endUser, 'megan');
  },

  'state-of-another-session': async (world) => {
    const { attache, oidc } = world;
    const [hers, his] = ['megan+hers@personalemail.com', 'robin@personalemail.com'];
    const person = await world.person();
    const other = await world.person();
    const own = await upToCallback(world, person, { provider: 'oidc-basic', endUser: hers });
    const foreign = await upToCallback(world, other, { provider: 'oidc-basic', endUser: his, login: 'robin' });
    const before = await tokenRequests(oidc);

    // Login CSRF: somebody lures her browser to the answer of their own session.
    assert.equal(await person.open(foreign.callback.url), 403, "another person's callback in her browser");
    // Mix-up: the answer of one provider at the callback of another.
    const mixedUp = new URL(own.callback.url);
    mixedUp.pathname = mixedUp.pathname.replace('oidc-basic', 'oidc-post');
    const status = await person.open(mixedUp.href);
    assert.ok([400, 403, 410].includes(status), `the callback of another provider answered ${status}`);
    const madeUp = new URL(own.callback.url);
    madeUp.searchParams.set('state', `${madeUp.searchParams.get('state')}x`);
    assert.ok([403, 410].includes(await person.open(madeUp.href)), 'a made-up state');
    const stateless = new URL(own.callback.url);
    stateless.searchParams.delete('state');
    assert.ok([400, 403, 410].includes(await person.open(stateless.href)), 'no state');
    assert.equal(await tokenRequests(oidc), before, 'a code was spent');

    // Code injection: his code under her state. PKCE makes it worth nothing.
    const injected = new URL(own.callback.url);
    injected.searchParams.set('code', new URL(foreign.callback.url).searchParams.get('code'));
    assert.equal(await person.open(injected.href), 502, "another session's code");
    for (const endUser of [hers, his]) assert.equal(await attache.connection('oidc-basic', endUser), null);
    assert.equal(await attache.connection('oidc-post', hers), null);
  },

  'wrong-issuer': async (world) => {
    const { attache, oidc } = world;
    const endUser = 'megan+iss@personalemail.com';
    for (const wrong of ['https://evil.example.com', null]) {
      const person = await world.person();
      const { callback } = await upToCallback(world, person, { provider: 'oidc-basic', endUser });
      const before = await tokenRequests(oidc);
      const url = new URL(callback.url);
      assert.equal(url.searchParams.get('iss'), oidc.issuer);
      // The server promises `iss` (RFC 9207 §2.3), so that an answer without it is no answer of its.
      if (wrong === null) url.searchParams.delete('iss');
      else url.searchParams.set('iss', wrong);
      const status = await person.open(url.href);
      assert.ok([400, 403, 502].includes(status), `a callback with iss ${wrong} answered ${status}`);
      assert.equal(await tokenRequests(oidc), before, 'the code was sent all the same');
      assert.equal(await attache.connection('oidc-basic', endUser), null);
    }
  },

  'provider-error': async (world) => {
    const { attache, app, oidc } = world;
    const endUser = 'megan+error@personalemail.com';
    await oidc.control({ fail_authorize: 'server_error' });
    try {
      const person = await world.person();
      const alone = await attache.link({ end_user: endUser, providers: ['oidc-basic'] });
      await person.open(alone.connect_url);
      const answered = person.page.waitForResponse((answer) => answer.url().includes('/oauth/callback/'));
      await person.choose('oidc-basic');
      assert.equal((await answered).status(), 502);
      await person.shoot('failed');
      const text = await person.page.locator('body').innerText();
      assert.ok(!text.includes('bad day'), "the page shows the provider's own text, which anybody could write");

      const link = await attache.link({ end_user: endUser, providers: ['oidc-basic'], return_url: app.returnUrl });
      const again = await world.person();
      await again.open(link.connect_url);
      await again.choose('oidc-basic');
      await again.page.waitForURL(`${app.url}/**`);
      landedAtApp(new URL(again.page.url()), { app, status: 'failed', provider: 'oidc-basic' });
    } finally {
      await oidc.control({ fail_authorize: null });
    }
    await notConnected(attache, 'oidc-basic', endUser);
  },

  'token-endpoint-hangs': async (world) => {
    const { attache, oidc } = world;
    const endUser = 'megan+slow@personalemail.com';
    const person = await world.person();
    const { callback } = await upToCallback(world, person, { provider: 'oidc-basic', endUser });
    await oidc.control({ hang_token: true });
    try {
      const began = Date.now();
      const answer = await person.page.goto(callback.url, { timeout: HANG_WITHIN_MS });
      assert.equal(answer.status(), 502);
      assert.ok(Date.now() - began < HANG_WITHIN_MS);
    } finally {
      await oidc.control({ hang_token: false });
    }
    assert.equal(await attache.connection('oidc-basic', endUser), null);
  },

  'open-redirect': async (world) => {
    const { attache, app } = world;
    const { host, port } = new URL(app.url);
    const wrong = [
      'https://evil.example.com/', '//evil.example.com/', '/\\evil.example.com', `http://${host}@evil.example.com/`,
      `http://${host}.evil.example.com/`, `http://127.0.0.1.evil.example.com:${port}/`, `${app.url}\\@evil.example.com`,
      `http://evil%20.example.com/`, 'javascript:alert(1)',
    ];
    for (const return_url of wrong) {
      const answer = await attache.admin('POST', '/v1/connect-sessions', { end_user: 'megan@personalemail.com', return_url });
      assert.equal(answer.status, 400, `return_url ${return_url} answered ${answer.status}: ${answer.text}`);
      assert.equal(answer.json.type, 'urn:attache:invalid-request');
    }
  },

  'mail-scanner': async (world) => {
    const { attache, oidc } = world;
    const endUser = 'megan+scanned@personalemail.com';
    const link = await attache.link({ end_user: endUser, providers: ['oidc-basic'] });
    const url = link.connect_url.replace('//localhost:', '//127.0.0.1:');
    const host = { Host: new URL(link.connect_url).host };
    const before = await oidc.counters();
    for (let time = 0; time < 20; time += 1) {
      const page = await send('GET', url, { headers: host });
      assert.equal(page.status, 200);
      assert.equal(page.headers['set-cookie'], undefined, 'opening the link binds a browser');
      assert.equal((await send('HEAD', url, { headers: host })).status, 200);
    }
    const after = await oidc.counters();
    assert.deepEqual([after.authorize_requests, after.par_requests], [before.authorize_requests, before.par_requests]);

    const form = { provider: 'oidc-basic' };
    for (const origin of ['https://evil.example.com', 'http://localhost:3000', 'null']) {
      const answer = await send('POST', url, { headers: { ...host, Origin: origin }, form });
      assert.ok([400, 403].includes(answer.status), `a form from ${origin} answered ${answer.status}`);
    }
    const answer = await send('POST', url, { headers: { ...host, Origin: attache.publicUrl }, form });
    assert.equal(answer.status, 303, 'the link is no good any more');
    assert.ok(answer.headers.location.startsWith(`${oidc.issuer}/auth?`), answer.headers.location);
    const [cookie] = answer.headers['set-cookie'];
    for (const part of ['HttpOnly', 'SameSite=Lax', 'Path=/']) assert.ok(cookie.includes(part), `${part} is not in ${cookie}`);
    assert.ok(!/;\s*Secure/i.test(cookie), 'Secure over plain http');
  },
};
