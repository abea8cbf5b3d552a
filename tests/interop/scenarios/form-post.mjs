// Providers that answer by a form POST, as Apple does: over plain http, and over https behind a load balancer with a path prefix.

import { startBalancer } from '../rig/balancer.mjs';
import { freePorts } from '../rig/processes.mjs';
import { assert, callsAs, landedAtApp } from './check.mjs';

async function behindABalancer(world, mode) {
  const port = world.tlsPorts[mode];
  const [proxy, publicPort, admin] = await freePorts(3);
  const publicUrl = `https://localhost:${port}/attache`;
  const attache = world.newAttache(`balanced-${mode}`, { ports: { proxy, publicPort, admin }, publicUrl });
  attache.extra = ['oidc-form'];
  attache.write();
  await attache.start();
  const balancer = await startBalancer({ port, prefix: '/attache', strips: mode === 'strips', to: publicPort, folder: world.folder });
  try {
    const endUser = 'megan@personalemail.com';
    for (const provider of ['oidc-form', 'oidc-basic']) {
      const person = await world.person({ ignoreHTTPSErrors: true });
      const cookies = [];
      person.page.on('response', async (answer) => {
        if (answer.request().method() !== 'POST' || !answer.url().includes('/connect/')) return;
        cookies.push(...(await answer.headersArray()).filter(({ name }) => name.toLowerCase() === 'set-cookie').map(({ value }) => value));
      });
      const { landed } = await world.connect({ provider, endUser, attache, person });
      landedAtApp(landed, { app: world.app, status: 'connected', provider });
      await callsAs(attache, provider, endUser, 'megan');
      assert.equal(cookies.length, 1, `cookies set: ${cookies}`);
      for (const part of ['Secure', 'HttpOnly', 'SameSite=Lax', 'Path=/attache']) {
        assert.ok(cookies[0].includes(part), `${part} is not in ${cookies[0]}`);
      }
    }
  } finally {
    balancer.close();
    await attache.process.terminate();
  }
}

export const scenarios = {
  'form-post-over-http': async (world) => {
    const { attache } = world;
    await attache.add('oidc-form');
    const endUser = 'megan+form@personalemail.com';
    const { landed, person } = await world.connect({ provider: 'oidc-form', endUser });
    landedAtApp(landed, { app: world.app, status: 'connected', provider: 'oidc-form' });
    await callsAs(attache, 'oidc-form', endUser, 'megan');

    const other = await world.person();
    const link = await attache.link({ end_user: `other-${endUser}`, providers: ['oidc-form'] });
    await other.open(link.connect_url);
    await other.choose('oidc-form');
    const callback = await other.heldCallback(() => other.agree());
    assert.equal(callback.method, 'POST');
    // The answer in a browser that never began: it is parked, and then nobody may come for it.
    const stranger = person;
    await stranger.page.setContent(formOf(callback));
    const answered = stranger.page.waitForResponse((answer) => answer.url().includes('/oauth/callback/') && answer.request().method() === 'GET');
    await stranger.page.locator('button').click();
    assert.equal((await answered).status(), 403);
    assert.equal(await attache.connection('oidc-form', `other-${endUser}`), null);
  },

  'form-post-over-https-prefix-stripped': (world) => behindABalancer(world, 'strips'),
  'form-post-over-https-prefix-kept': (world) => behindABalancer(world, 'keeps'),
};

function formOf({ url, body }) {
  const inputs = [...new URLSearchParams(body)].map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`);
  return `<form method="post" action="${url}">${inputs.join('')}<button>Send</button></form>`;
}
