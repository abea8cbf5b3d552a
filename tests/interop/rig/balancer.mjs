// A load balancer: it ends TLS, and passes on everything below a path prefix, with the prefix or without.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';

export async function startBalancer({ port, prefix, strips, to, folder }) {
  const server = createServer(certificate(folder), (asked, response) => {
    if (!asked.url.startsWith(`${prefix}/`)) {
      response.writeHead(404).end();
      return;
    }
    const path = strips ? asked.url.slice(prefix.length) : asked.url;
    const headers = { ...asked.headers, 'x-forwarded-proto': 'https', 'x-forwarded-for': asked.socket.remoteAddress };
    const passed = request({ host: '127.0.0.1', port: to, method: asked.method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    asked.pipe(passed);
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return {
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function certificate(folder) {
  const [key, cert] = ['balancer.key', 'balancer.crt'].map((name) => join(folder, name));
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', cert,
  ], { stdio: 'pipe' });
  return { key: readFileSync(key), cert: readFileSync(cert) };
}
