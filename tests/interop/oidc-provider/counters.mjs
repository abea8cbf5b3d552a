// What the authorization server saw, for the tests to compare.

export class Counters {
  /** Calls of the token endpoint, answered or not. */
  token_requests = 0;
  authorize_requests = 0;
  /** By grant type, and those of them that were refused. */
  grants = {};
  refused = {};
  /** Grants ended because a refresh token or a code was used a second time. */
  reuse_detected = 0;
  /** Grants ended by the revocation endpoint. */
  revoked = 0;
  par_requests = 0;
  device_requests = 0;
  /** At the API: proofs that hold, and calls that were told to come again with a nonce. */
  proofs = 0;
  nonces_wanted = 0;

  watch(provider) {
    const bump = (table, ctx) => {
      const type = ctx.oidc?.params?.grant_type ?? 'unknown';
      table[type] = (table[type] ?? 0) + 1;
    };
    provider.on('grant.success', (ctx) => bump(this.grants, ctx));
    provider.on('grant.error', (ctx, error) => {
      console.error(`token endpoint: ${error.message} ${error.error_description ?? ''} ${error.error_detail ?? ''}`);
      bump(this.refused, ctx);
    });
    provider.on('grant.revoked', (ctx) => {
      if (ctx.oidc.route === 'revocation') this.revoked += 1;
      else this.reuse_detected += 1;
    });
    provider.on('pushed_authorization_request.success', () => (this.par_requests += 1));
    provider.on('device_authorization.success', () => (this.device_requests += 1));
    for (const name of ['authorization.error', 'pushed_authorization_request.error', 'revocation.error', 'server_error']) {
      provider.on(name, (_ctx, error) => console.error(`${name}: ${error.message} ${error.error_description ?? ''} ${error.error_detail ?? ''}`));
    }
  }
}
