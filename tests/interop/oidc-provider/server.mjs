// An authorization server of node-oidc-provider, with an API that its access tokens open, on plain http on loopback.
//
//     node oidc-provider/server.mjs --port 9001 --redirect-base http://localhost:7071 [--ttl 5] [--client-key KEY.jwk]
//
// Prints one JSON line, {"port", "issuer"}, when it is ready.
//   GET  /__counters   what it saw so far
//   POST /__control    {"hang_token": bool, "fail_authorize": "server_error"|null}: how it misbehaves from now on
//   POST /__revoke     {"login": "megan"}: this person takes all consents back, on the server's own settings page as it were

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { clients } from './clients.mjs';
import { Counters } from './counters.mjs';
import { Bound } from './bound.mjs';

const { values: args } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    ttl: { type: 'string', default: '5' },
    'redirect-base': { type: 'string', multiple: true, default: ['http://localhost:7071'] },
    'client-key': { type: 'string' },
  },
});
const ttl = Number(args.ttl);
const control = { hang_token: false, fail_authorize: null };
const counters = new Counters();
// The consents that each person gave, by their id.
const grantsOf = new Map();
const bound = new Bound(counters);

const server = createServer();
await new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(Number(args.port), '127.0.0.1', resolve);
});
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, await configuration());
counters.watch(provider);
// What was pushed (RFC 9126), by the name that the browser then carries.
const pushed = new Map();
provider.on('pushed_authorization_request.success', (ctx) => pushed.set(ctx.body.request_uri, { ...ctx.oidc.params }));
provider.on('grant.saved', (grant) => grantsOf.set(grant.jti, grant.accountId));
const oauth = provider.callback();
server.on('request', (request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});
console.log(JSON.stringify({ port: server.address().port, issuer }));

async function configuration() {
  return {
    clients: clients(args['redirect-base'], await clientKey()),
    jwks: { keys: [await signingKey()] },
    cookies: { keys: ['interop'] },
    scopes: ['openid', 'offline_access', 'profile', 'photos.read'],
    pkce: { required: () => true },
    // Each refresh token is good once; a second use ends the whole grant.
    rotateRefreshToken: true,
    ttl: {
      AccessToken: () => ttl,
      ClientCredentials: () => ttl,
      DeviceCode: 120,
      Interaction: 600,
      Session: 3600,
      Grant: 86400,
      RefreshToken: 86400,
      IdToken: 3600,
    },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      clientCredentials: { enabled: true },
      pushedAuthorizationRequests: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({ audience: resource, scope: 'photos.read', accessTokenFormat: 'opaque', accessTokenTTL: ttl }),
        // The resource that was granted also holds at the token endpoint, where a client need not name it again.
        useGrantedResource: () => true,
      },
    },
  };
}

async function signingKey() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'interop' };
}

/** The public half of the key that the signing client proves itself with. */
async function clientKey() {
  if (args['client-key']) return JSON.parse(readFileSync(args['client-key'], 'utf8'));
  const { publicKey } = await generateKeyPair('ES256', { extractable: true });
  return exportJWK(publicKey);
}

async function answer(request, response) {
  const url = new URL(request.url, issuer);
  switch (url.pathname) {
    case '/__counters':
      return json(response, 200, counters);
    case '/__control':
      Object.assign(control, JSON.parse(await text(request)));
      return json(response, 200, control);
    case '/__revoke':
      await takeBack(JSON.parse(await text(request)).login);
      return json(response, 200, {});
    case '/me':
    case '/api/echo':
      return api(request, response, url);
    case '/token':
      counters.token_requests += 1;
      // Never answered: whoever asked must give up by itself.
      if (control.hang_token) return request.resume();
      return oauth(request, response);
    case '/auth':
      counters.authorize_requests += 1;
      if (control.fail_authorize) return sendBackAnError(response, url.searchParams);
      return oauth(request, response);
    default:
      return oauth(request, response);
  }
}

/** The protected API: it takes live access tokens of this server, and tells whose and what for. */
async function api(request, response, url) {
  const [, scheme, token] = /^(Bearer|DPoP) (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  const found = token && ((await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token)));
  if (!found || found.isExpired) {
    response.setHeader('WWW-Authenticate', 'Bearer error="invalid_token"');
    return json(response, 401, { error: 'invalid_token' });
  }
  const refusal = await bound.refusal(request, `${issuer}${url.pathname}`, { scheme, token, jkt: found.jkt });
  if (refusal) {
    response.setHeader('WWW-Authenticate', `DPoP error="${refusal}", algs="ES256"`);
    response.setHeader('DPoP-Nonce', bound.nonce);
    return json(response, 401, { error: refusal });
  }
  const of_token = { sub: found.accountId ?? null, client_id: found.clientId, scope: found.scope ?? '', aud: found.aud ?? null, jkt: found.jkt ?? null };
  if (url.pathname === '/me') return json(response, 200, of_token);
  return json(response, 200, { ...of_token, method: request.method, query: url.search, headers: request.headers });
}

async function takeBack(login) {
  for (const [id] of [...grantsOf].filter(([, account]) => account === login)) {
    await Promise.all([provider.AccessToken.revokeByGrantId(id), provider.RefreshToken.revokeByGrantId(id)]);
    await (await provider.Grant.find(id))?.destroy();
    grantsOf.delete(id);
  }
}

function sendBackAnError(response, query) {
  const asked = pushed.get(query.get('request_uri')) ?? Object.fromEntries(query);
  const back = new URL(asked.redirect_uri);
  back.searchParams.set('error', control.fail_authorize);
  back.searchParams.set('error_description', 'the provider is having a bad day');
  back.searchParams.set('state', asked.state);
  back.searchParams.set('iss', issuer);
  response.writeHead(303, { Location: back.href }).end();
}

async function text(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body;
}

function json(response, status, value) {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }).end(JSON.stringify(value));
}
