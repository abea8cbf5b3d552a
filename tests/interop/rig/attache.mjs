// One Attaché: its folder, its process, and its three listeners as the app's back end sees them.

import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ADMIN_TOKEN, writeDefinitions, writeRoutes } from './config.mjs';
import { send } from './http.mjs';
import { Process } from './processes.mjs';

export class Attache {
  /** `where`: `{folder, ports: {proxy, publicPort, admin}, publicUrl, appUrl, oidcIssuer, authlibIssuer, keyFile}`. */
  constructor(binary, where) {
    this.binary = binary;
    this.where = where;
    this.publicUrl = where.publicUrl;
    this.extra = [];
    mkdirSync(where.folder, { recursive: true });
    copyFileSync(where.keyFile, join(where.folder, 'client.pem'));
    writeDefinitions(where.folder, where);
    this.write();
    this.process = new Process('attache', [binary, '--log-format', 'json', 'run', '-c', 'routes.yaml'], {
      folder: where.folder,
      env: { RUST_LOG: process.env.RUST_LOG ?? 'info,attache=debug' },
    });
  }

  write() {
    writeRoutes(this.where.folder, { ...this.where, ...this.where.ports, extra: this.extra });
  }

  start() {
    return this.process.start('attache is ready');
  }

  /** Adds registrations and their routes while it runs. One that is refused is taken out again, and told. */
  async add(...more) {
    const before = this.extra;
    this.extra = [...before.filter((one) => !more.some((id) => String(id) === String(one))), ...more];
    this.write();
    const answer = await this.admin('POST', '/v1/reload');
    if (answer.status === 200) return;
    this.extra = before;
    this.write();
    await this.admin('POST', '/v1/reload');
    throw new Error(`the config with ${more.join(', ')} is refused: ${answer.text}`);
  }

  admin(method, path, json) {
    return send(method, `http://127.0.0.1:${this.where.ports.admin}${path}`, { headers: { Authorization: `Bearer ${ADMIN_TOKEN}` }, json });
  }

  /** A call of the app, through the proxy. */
  call(path, endUser, { account, method = 'GET', headers: more = {}, ...sent } = {}) {
    const headers = { ...more };
    if (endUser) headers['X-End-User'] = endUser;
    if (account) headers['X-End-User-Account'] = account;
    return send(method, `http://127.0.0.1:${this.where.ports.proxy}${path}`, { headers, ...sent });
  }

  /** Makes a connect link; answers `{connect_url, session, expires_at}`. */
  async link(asked) {
    const answer = await this.admin('POST', '/v1/connect-sessions', asked);
    if (answer.status !== 201) throw new Error(`POST /v1/connect-sessions answered ${answer.status}: ${answer.text}`);
    if (!answer.json.connect_url.startsWith(`${this.publicUrl}/connect/`)) throw new Error(`connect_url is ${answer.json.connect_url}`);
    return answer.json;
  }

  /** The connection, or null. */
  async connection(provider, endUser, account) {
    const query = account ? `?account=${encodeURIComponent(account)}` : '';
    const answer = await this.admin('GET', `/v1/connections/${provider}/${encodeURIComponent(endUser)}${query}`);
    if (answer.status === 404) return null;
    if (answer.status !== 200) throw new Error(`GET /v1/connections/… answered ${answer.status}: ${answer.text}`);
    return answer.json;
  }
}
