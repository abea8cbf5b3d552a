// What the tests configure Attaché with. Files are written as JSON, which YAML takes.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RESOURCE, SECRET } from '../oidc-provider/clients.mjs';

export const ADMIN_TOKEN = 'interop-admin-token-0123456789abcdef';

/** A registration of node-oidc-provider. It gives refresh tokens to whoever asks for offline access and for consent (OIDC Core §11). */
const oidc = (id, more = {}) => ({
  use: 'oidc',
  client_id: id,
  client_secret: SECRET,
  scopes: ['openid', 'offline_access'],
  authorize_params: { prompt: 'consent' },
  ...more,
});

const authlib = (id, more = {}) => ({ use: 'authlib', client_id: id, client_secret: SECRET, scopes: ['photos.read'], ...more });

/** A registration of oauthlib's OAuth 1.0a. */
const oauthlib = (id, signature, more = {}) => ({ use: 'oauthlib', client_id: id, client_secret: 'oauthlib +&% secret', oauth1: { signature, ...more } });

/** The registrations that every scenario can count on. */
const BASE = {
  'oidc-basic': oidc('oidc-basic', { display_name: 'Lakeside Photos' }),
  'oidc-post': oidc('oidc-post', { client_auth: 'body', display_name: 'Harbour Photos' }),
  'authlib-post': authlib('authlib-post', { client_auth: 'body', display_name: 'Valley Drive' }),
};

/** Those that a scenario adds for itself, so that one which Attaché does not take fails that scenario alone. */
export const EXTRA = {
  'authlib-basic': authlib('authlib-basic'),
  'oidc-form': oidc('oidc-form', { authorize_params: { prompt: 'consent', response_mode: 'form_post' } }),
  // The server takes pushed requests from all, and demands them of this client alone, so that its metadata does not.
  'oidc-par': ({ oidcIssuer }) => oidc('oidc-par', { par_url: `${oidcIssuer}/request` }),
  'oidc-key': oidc('oidc-key', {
    client_secret: undefined,
    client_auth: 'private_key_jwt',
    client_key: '${file:client.pem}',
    client_key_id: 'interop',
  }),
  'oidc-dpop': oidc('oidc-dpop', { dpop: true }),
  'oidc-dpop-native': oidc('oidc-dpop-native', { client_secret: undefined, dpop: true }),
  'oidc-dpop-app': oidc('oidc-dpop-app', { scopes: [], authorize_params: undefined, dpop: true }),
  'oidc-resource': oidc('oidc-resource', { resource: [RESOURCE], scopes: ['offline_access', 'photos.read'] }),
  'oidc-native': oidc('oidc-native', { client_secret: undefined }),
  'oidc-device': oidc('oidc-device', { client_secret: undefined, authorize_params: undefined }),
  'oidc-app': oidc('oidc-app', { scopes: [], authorize_params: undefined }),
  'authlib-app': authlib('authlib-app', { client_auth: 'body' }),
  // No end user grants anything here: the assertion names them.
  'authlib-jwt': ({ authlibIssuer }) =>
    authlib('authlib-jwt', {
      client_secret: undefined,
      jwt_bearer: {
        key: '${file:client.pem}',
        algorithm: 'ES256',
        issuer: 'authlib-jwt',
        subject: '{end_user}',
        audience: `${authlibIssuer}/oauth/token`,
      },
    }),
  'authlib-exchange': authlib('authlib-exchange', { token_exchange: { from: 'authlib-post' } }),
  'oauthlib-hmac': oauthlib('oauthlib-hmac', 'HMAC-SHA1', { realm: 'photos' }),
  'oauthlib-hmac256': oauthlib('oauthlib-hmac256', 'HMAC-SHA256'),
  'oauthlib-plain': oauthlib('oauthlib-plain', 'PLAINTEXT'),
};

/** A definition that is discovered, one that is written out, and one of OAuth 1.0a. */
export function writeDefinitions(folder, { oidcIssuer, authlibIssuer, oauthlibIssuer }) {
  mkdirSync(join(folder, 'providers'), { recursive: true });
  const definitions = {
    oidc: { issuer: oidcIssuer, token_hosts: [new URL(oidcIssuer).host] },
    authlib: {
      authorize_url: `${authlibIssuer}/oauth/authorize`,
      token_url: `${authlibIssuer}/oauth/token`,
      revoke_url: `${authlibIssuer}/oauth/revoke`,
      token_hosts: [new URL(authlibIssuer).host],
    },
    oauthlib: {
      request_token_url: `${oauthlibIssuer}/initiate`,
      authorize_url: `${oauthlibIssuer}/authorize`,
      token_url: `${oauthlibIssuer}/token`,
      metadata: { screen_name: 'reply.screen_name' },
      token_hosts: [new URL(oauthlibIssuer).host],
    },
  };
  for (const [id, definition] of Object.entries(definitions)) {
    writeFileSync(join(folder, 'providers', `${id}.yaml`), text(definition));
  }
}

/** `extra`: ids of `EXTRA`, or `[id, "app"]` for one whose route carries the app's own token. */
export function writeRoutes(folder, { proxy, publicPort, admin, publicUrl, appUrl, oidcIssuer, authlibIssuer, oauthlibIssuer, extra = [] }) {
  const added = extra.map((one) => (Array.isArray(one) ? one : [one, 'user']));
  const providers = { ...BASE };
  for (const [id] of added) {
    const entry = EXTRA[id];
    providers[id] = typeof entry === 'function' ? entry({ oidcIssuer, authlibIssuer }) : entry;
  }
  const named = [...Object.keys(BASE).map((id) => [id, 'user']), ...added];
  const config = {
    listen: { proxy: `127.0.0.1:${proxy}`, public: `127.0.0.1:${publicPort}`, admin: `127.0.0.1:${admin}` },
    public_url: publicUrl,
    store: { sled: { path: './attache.db' } },
    admin: { token: ADMIN_TOKEN },
    connect: { app_name: 'PrintPixie', allowed_return_urls: [appUrl] },
    shutdown: { drain: '5s' },
    providers,
    routes: named.map(([id, as]) => ({
      match: `/${id}/{*rest}`,
      provider: id,
      as,
      upstream: `${id.startsWith('oidc') ? oidcIssuer : id.startsWith('oauthlib') ? oauthlibIssuer : authlibIssuer}/{rest}`,
    })),
  };
  writeFileSync(join(folder, 'routes.yaml'), text(config));
}

const text = (value) => `${JSON.stringify(value, null, 2)}\n`;
