// @microsoft/microsoft-graph-client. Links inside answers (`@odata.nextLink`) are absolute: one middleware sends them to Attaché too.

import assert from 'node:assert/strict';
import graphClient from '@microsoft/microsoft-graph-client';
import { ATTACHE, forEachUser, GONE } from './common.mjs';

const { Client, HTTPMessageHandler, PageIterator, RetryHandler } = graphClient;

// docs: begin
class ThroughAttache {
  constructor(endUser) {
    this.endUser = endUser;
  }
  setNext(next) {
    this.next = next;
  }
  execute(context) {
    context.request = String(context.request).replace('https://graph.microsoft.com/', `${ATTACHE}/graph/`);
    context.options.headers = { ...context.options.headers, 'X-End-User': this.endUser };
    return this.next.execute(context);
  }
}

function graphOf(endUser) {
  const [first, retry, last] = [new ThroughAttache(endUser), new RetryHandler(), new HTTPMessageHandler()];
  first.setNext(retry);
  retry.setNext(last);
  return Client.initWithMiddleware({ baseUrl: `${ATTACHE}/graph/`, middleware: first });
}
// docs: end

await forEachUser(async (user, login) => {
  const graph = graphOf(user);
  assert.equal((await graph.api('/me').get()).displayName, login);

  const subjects = [];
  const pages = new PageIterator(graph, await graph.api('/me/messages').get(), (one) => subjects.push(one.subject) > 0);
  await pages.iterate();
  assert.deepEqual(subjects, [0, 1, 2, 3, 4].map((n) => `${login} ${n}`));

  assert.equal((await graph.api('/me/messages').post({ subject: 'made' })).from, login);
  const content = Buffer.alloc(300_000, login);
  assert.equal((await graph.api('/me/drive/root:/photo.jpg:/content').put(content)).size, content.length);
  const back = await graph.api('/me/drive/root:/photo.jpg:/content').responseType('arraybuffer').get();
  assert.ok(content.equals(Buffer.from(back)));

  // The client's own retry: 429 with `Retry-After: 1`, then 200.
  assert.equal((await graph.api('/me/drive/root:/limited.txt').get()).name, 'limited.txt');
  await assert.rejects(graph.api('/me/nothing').get(), (error) => error instanceof graphClient.GraphError && error.statusCode === 404 && error.code === 'itemNotFound');
  await assert.rejects(graphOf(GONE).api('/me').get(), (error) => error.statusCode === 401 && error.code === 'InvalidAuthenticationToken');
});
