// What scenarios say of what they saw.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

export { assert, sleep };

/** The app's page, with this status and provider. */
export function landedAtApp(url, { app, status, provider }) {
  assert.equal(url.origin, app.url, `the browser came out at ${url}`);
  assert.equal(url.searchParams.get('from'), 'settings', `return_url lost its own query: ${url}`);
  assert.equal(url.searchParams.get('status'), status, `${url}`);
  assert.equal(url.searchParams.get('provider'), provider, `${url}`);
  for (const secret of ['code', 'state']) assert.equal(url.searchParams.get(secret), null, `${secret} went on to the app`);
}

/** A call through the proxy is answered by the provider's API, and `sub` is whose token it carried. */
export async function callsAs(attache, provider, endUser, sub, options) {
  const answer = await attache.call(`/${provider}/me`, endUser, options);
  assert.equal(answer.status, 200, `GET /${provider}/me answered ${answer.status}: ${answer.text}`);
  assert.equal(answer.json.sub, sub);
  return answer.json;
}

/** Attaché's own 401 for somebody who has no connection. */
export async function notConnected(attache, provider, endUser, options) {
  const answer = await attache.call(`/${provider}/me`, endUser, options);
  assert.equal(answer.status, 401, `GET /${provider}/me answered ${answer.status}: ${answer.text}`);
  assert.equal(answer.json?.type, 'urn:attache:not-connected', answer.text);
}

/** Waits until `get` answers what `wanted` takes. */
export async function eventually(get, wanted, withinMs, what) {
  const giveUp = Date.now() + withinMs;
  for (;;) {
    const found = await get();
    if (wanted(found)) return found;
    if (Date.now() > giveUp) throw new Error(`${what}: still ${JSON.stringify(found)} after ${withinMs / 1000} s`);
    await sleep(250);
  }
}
