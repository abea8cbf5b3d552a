// PrintPixie, as far as connecting goes: the site that a browser comes back to.

import { createServer } from 'node:http';

const PAGE = '<!doctype html><meta name="viewport" content="width=device-width"><title>PrintPixie</title><h1>PrintPixie</h1><p>Welcome back.</p>';

export async function startApp(port) {
  const server = createServer((_request, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end(PAGE));
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${port}`, returnUrl: `http://127.0.0.1:${port}/connected?from=settings`, close: () => server.close() };
}
