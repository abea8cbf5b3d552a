// The device flow: a code that the end user types in a browser elsewhere.

import { assert, callsAs, eventually, notConnected } from './check.mjs';

/** The provider polls every five seconds (RFC 8628 §3.2). */
const POLLED_WITHIN_MS = 30_000;

/** At node-oidc-provider: types the code and confirms it; `login` agrees, without one the person aborts. */
export async function typeCode(person, { uri, code, login }) {
  const { page } = person;
  await person.open(uri);
  await page.locator('input[name=user_code]').fill(code);
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByText('Confirm Device').waitFor();
  if (!login) {
    await page.getByRole('button', { name: 'Abort' }).click();
    return;
  }
  await page.getByRole('button', { name: 'Continue' }).click();
  await person.signIn(login);
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByText('Sign-in Success').waitFor();
}

async function begin(world, endUser) {
  await world.attache.add('oidc-device');
  const made = await world.attache.admin('POST', '/v1/device-sessions', { provider: 'oidc-device', end_user: endUser });
  assert.equal(made.status, 201, made.text);
  const { id, user_code: code, verification_uri: uri, verification_uri_complete: whole, expires_at: end } = made.json;
  assert.ok(code && uri && id, made.text);
  assert.ok(whole.includes(code), made.text);
  assert.ok(new Date(end) > new Date(), made.text);
  assert.ok(!('device_code' in made.json), 'the device code is a secret');
  const state = async () => (await world.attache.admin('GET', `/v1/device-sessions/${id}`)).json.state;
  assert.equal(await state(), 'pending');
  return { code, uri, state };
}

export const scenarios = {
  'device-flow': async (world) => {
    const endUser = 'megan+tv@personalemail.com';
    const { code, uri, state } = await begin(world, endUser);
    await notConnected(world.attache, 'oidc-device', endUser);
    await typeCode(await world.person(), { uri, code, login: 'megan' });
    await eventually(state, (found) => found !== 'pending', POLLED_WITHIN_MS, 'the device session');
    assert.equal(await state(), 'connected');
    await callsAs(world.attache, 'oidc-device', endUser, 'megan');
  },

  'device-flow-denied': async (world) => {
    const endUser = 'megan+notv@personalemail.com';
    const { code, uri, state } = await begin(world, endUser);
    await typeCode(await world.person(), { uri, code });
    await eventually(state, (found) => found !== 'pending', POLLED_WITHIN_MS, 'the device session');
    assert.equal(await state(), 'denied');
    await notConnected(world.attache, 'oidc-device', endUser);
  },
};
