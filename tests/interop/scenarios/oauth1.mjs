// OAuth 1.0a against oauthlib: the three steps, and calls that it takes only with the right signature.

import { assert, callsAs, landedAtApp, notConnected } from './check.mjs';

const FORM = 'application/x-www-form-urlencoded';

async function connected(world, provider) {
  const { attache, app } = world;
  await attache.add(provider);
  const endUser = `megan+${provider}@personalemail.com`;
  await notConnected(attache, provider, endUser);
  const { landed } = await world.connect({ provider, endUser });
  landedAtApp(landed, { app, status: 'connected', provider });
  for (const secret of ['oauth_token', 'oauth_verifier']) assert.equal(landed.searchParams.get(secret), null, `${secret} went on to the app`);
  return endUser;
}

export const scenarios = {
  'oauth1-calls': async (world) => {
    for (const provider of ['oauthlib-hmac', 'oauthlib-hmac256', 'oauthlib-plain']) {
      const endUser = await connected(world, provider);
      const { metadata, expires_at: end } = await world.attache.connection(provider, endUser);
      assert.deepEqual([metadata.screen_name, end], ['Megan Bowen', null]);
      const told = await callsAs(world.attache, provider, endUser, 'megan');
      assert.equal(told.client_id, provider);
      const calls = [
        ['GET', 'files/K!images?b=2&a=z&a=a%20b+c&%C3%A9=%2B&n', {}],
        ['POST', 'files/a%21b?x=1', { form: { status: "Hello, 'world' (*) ~ é +&=%" } }],
        ['POST', 'files/doubled', { headers: { 'Content-Type': FORM }, body: 'c2&a3=2+q&a3=a&a2=r%20b' }],
        ['PUT', 'files/raw', { headers: { 'Content-Type': 'application/octet-stream' }, body: Buffer.alloc(300_000, 0xff) }],
        ['POST', 'files/parts', { headers: { 'Content-Type': 'multipart/form-data; boundary=x' }, body: '--x\r\n\r\na=b\r\n--x--\r\n' }],
        ['POST', 'files/json', { json: { a: 'b=c&d' } }],
        ['DELETE', "files/(x)'*", {}],
      ];
      for (const [method, path, { headers = {}, ...sent }] of calls) {
        const answer = await world.attache.call(`/${provider}/${path}`, endUser, { method, headers, ...sent });
        assert.equal(answer.status, 200, `${provider}: ${method} ${path} answered ${answer.status}: ${answer.text}`);
        assert.equal(answer.json.target, `/${path}`);
        if (sent.body) assert.equal(answer.json.body_bytes, sent.body.length);
        assert.equal(answer.json.token_secret_shown, provider === 'oauthlib-plain');
      }
      // Many at once: every nonce is another.
      await Promise.all(Array.from({ length: 50 }, () => callsAs(world.attache, provider, endUser, 'megan')));
    }
    assert.equal((await world.oauthlib.counters()).refused, 0);
  },

  'oauth1-denied-and-taken-back': async (world) => {
    const { attache, app, oauthlib } = world;
    const provider = 'oauthlib-hmac';
    await attache.add(provider);
    const endUser = 'robin+oauth1@personalemail.com';
    const person = await world.person();
    const link = await attache.link({ end_user: endUser, providers: [provider], return_url: app.returnUrl });
    assert.equal(await person.open(link.connect_url), 200);
    await person.choose(provider);
    await person.deny();
    landedAtApp(new URL(person.page.url()), { app, status: 'denied', provider });
    await notConnected(attache, provider, endUser);

    await world.connect({ provider, endUser, login: 'robin' });
    await callsAs(attache, provider, endUser, 'robin');
    await oauthlib.takeBack('robin');
    // There is nothing to renew the token by: the provider's own answer is the app's.
    const answer = await attache.call(`/${provider}/me`, endUser);
    assert.deepEqual([answer.status, answer.json.error], [401, 'refused']);
  },

  'oauth1-anothers-answer': async (world) => {
    const { attache } = world;
    const provider = 'oauthlib-hmac';
    await attache.add(provider);
    const held = async (endUser, login) => {
      const person = await world.person();
      const link = await attache.link({ end_user: endUser, providers: [provider] });
      assert.equal(await person.open(link.connect_url), 200);
      await person.choose(provider);
      return { person, callback: await person.heldCallback(() => person.agree(login)) };
    };
    const [hers, his] = ['megan+oauth1@personalemail.com', 'mallory+oauth1@personalemail.com'];
    const [megan, mallory] = [await held(hers, 'megan'), await held(his, 'mallory')];
    const before = (await world.oauthlib.counters()).access_tokens;
    assert.equal(await megan.person.open(mallory.callback.url), 410, "another's answer in her browser");
    assert.equal(await mallory.person.open(megan.callback.url), 410, 'her answer in his');
    assert.equal((await world.oauthlib.counters()).access_tokens, before);
    assert.equal(await megan.person.open(megan.callback.url), 200);
    assert.equal(await megan.person.open(megan.callback.url), 410, 'the callback a second time');
    await callsAs(attache, provider, hers, 'megan');
    await notConnected(attache, provider, his);
  },
};
