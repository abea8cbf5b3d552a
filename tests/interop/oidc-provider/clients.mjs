// The clients that this authorization server knows. Their ids are also the provider ids in the tests' routes.yaml, because the
// redirect URI ends in the provider's id.

export const SECRET = 'interop-secret';
export const RESOURCE = 'https://photos.example.com/';

const CODE = 'authorization_code';
const REFRESH = 'refresh_token';
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

/** `bases`: each `public_url` that a redirect may go back to. `publicJwk`: the key of the client that signs. */
export function clients(bases, publicJwk) {
  const web = (id, method, more = {}) => ({
    client_id: id,
    client_name: 'PrintPixie',
    client_secret: SECRET,
    token_endpoint_auth_method: method,
    redirect_uris: bases.map((base) => `${base}/oauth/callback/${id}`),
    response_types: ['code'],
    grant_types: [CODE, REFRESH],
    ...more,
  });
  const none = (id, more) => {
    const { client_secret, ...client } = web(id, 'none', more);
    return client;
  };
  const { client_secret, ...signing } = web('oidc-key', 'private_key_jwt', {
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [publicJwk] },
  });
  return [
    web('oidc-basic', 'client_secret_basic'),
    web('oidc-post', 'client_secret_post'),
    signing,
    web('oidc-form', 'client_secret_basic'),
    web('oidc-par', 'client_secret_basic', { require_pushed_authorization_requests: true }),
    web('oidc-resource', 'client_secret_basic'),
    web('oidc-app', 'client_secret_basic', { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] }),
    // Their tokens are good only with proofs of a key (RFC 9449); a public client's refresh tokens too.
    web('oidc-dpop', 'client_secret_basic', { dpop_bound_access_tokens: true }),
    none('oidc-dpop-native', { application_type: 'native', redirect_uris: loopback('oidc-dpop-native'), dpop_bound_access_tokens: true }),
    web('oidc-dpop-app', 'client_secret_basic', {
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
      dpop_bound_access_tokens: true,
    }),
    // RFC 8252 §7.3: the port of a loopback redirect is free.
    none('oidc-native', { application_type: 'native', redirect_uris: loopback('oidc-native') }),
    none('oidc-device', { application_type: 'native', redirect_uris: [], response_types: [], grant_types: [DEVICE, REFRESH] }),
  ];
}

function loopback(id) {
  const hosts = ['http://127.0.0.1', 'http://localhost', 'http://[::1]'];
  return hosts.flatMap((host) => [`${host}/oauth/callback/${id}`, `${host}/callback`, `${host}/`]);
}
