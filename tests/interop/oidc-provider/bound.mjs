// What the API asks of a token that is bound to a key (RFC 9449 §4.3, §7), checked by jose.

import { createHash, randomBytes } from 'node:crypto';
import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose';

/** Clocks may differ by so much. */
const AGE_MAX_S = 30;

export class Bound {
  /** The API's own; another than the token endpoint's. */
  nonce = randomBytes(16).toString('base64url');
  #seen = new Set();
  #counters;

  constructor(counters) {
    this.#counters = counters;
  }

  /** Why this call is not answered, as an error code; nothing where it is well. */
  async refusal(request, uri, { scheme, token, jkt }) {
    if (!jkt) return scheme === 'Bearer' ? undefined : 'invalid_token';
    if (scheme !== 'DPoP') return 'invalid_token';
    try {
      return await this.#judge(request, uri, token, jkt);
    } catch (error) {
      console.error(`a proof at the API: ${error.message}`);
      return 'invalid_dpop_proof';
    }
  }

  async #judge(request, uri, token, jkt) {
    const proof = request.headers.dpop ?? '';
    const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
      typ: 'dpop+jwt',
      algorithms: ['ES256'],
      maxTokenAge: `${AGE_MAX_S}s`,
      clockTolerance: AGE_MAX_S,
    });
    const ath = createHash('sha256').update(token).digest('base64url');
    const expected = { htm: request.method, htu: uri, ath };
    for (const [name, value] of Object.entries(expected)) {
      if (payload[name] !== value) throw new Error(`${name} is ${payload[name]} and not ${value}`);
    }
    if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== jkt) throw new Error('the proof is of another key than the token');
    if (typeof payload.jti !== 'string' || this.#seen.has(payload.jti)) throw new Error('its jti was there before');
    this.#seen.add(payload.jti);
    if (payload.nonce !== this.nonce) {
      this.#counters.nonces_wanted += 1;
      return 'use_dpop_nonce';
    }
    this.#counters.proofs += 1;
    return undefined;
  }
}
