// Everything that a scenario stands in: the authorization servers, the app, the browser, and the Attaché in the middle.

import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startApp } from './app.mjs';
import { Attache } from './attache.mjs';
import { startBrowser } from './browser.mjs';
import { send } from './http.mjs';
import { freePorts, Process } from './processes.mjs';

const HERE = dirname(dirname(fileURLToPath(import.meta.url)));
/** The life of an access token at both servers. */
export const TTL_S = 5;

export class World {
  people = [];
  closers = [];

  static async start({ attache, chromium, shots }) {
    const world = new World();
    world.binary = attache;
    world.folder = mkdtempSync(join(tmpdir(), 'attache-interop-'));
    try {
      await world.startAll(chromium, shots);
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  async startAll(chromium, shots) {
    const [oidc, authlib, oauthlib, app, proxy, publicPort, admin, strippedTls, keptTls] = await freePorts(9);
    this.tlsPorts = { strips: strippedTls, keeps: keptTls };
    // Each place that a provider may send browsers back to.
    const bases = [`http://localhost:${publicPort}`, `https://localhost:${strippedTls}/attache`, `https://localhost:${keptTls}/attache`];
    const keys = writeKeys(this.folder);
    this.oidc = await this.serve('oidc', oidc, bases, [process.execPath, join(HERE, 'oidc-provider/server.mjs'), '--client-key', keys.jwk]);
    const python = join(HERE, '.venv/bin/python');
    this.authlib = await this.serve('authlib', authlib, bases, [python, join(HERE, 'authlib-server/server.py'), '--public-key', keys.publicPem]);
    this.oauthlib = await this.serve('oauthlib', oauthlib, bases, [python, join(HERE, 'oauthlib-server/server.py')]);
    this.app = await startApp(app);
    this.closers.push(() => this.app.close());
    this.keyFile = keys.pem;
    this.attache = this.newAttache('main', { ports: { proxy, publicPort, admin }, publicUrl: bases[0] });
    await this.attache.start();
    this.browser = await startBrowser(chromium, shots);
    this.closers.push(() => this.browser.close());
  }

  async serve(name, port, bases, command) {
    const redirects = bases.flatMap((base) => ['--redirect-base', base]);
    const server = new Process(name, [...command, '--port', String(port), '--ttl', String(TTL_S), ...redirects], { folder: this.folder });
    this.closers.push(() => server.kill());
    await server.start('"issuer"');
    const issuer = `http://127.0.0.1:${port}`;
    return {
      issuer,
      counters: async () => (await send('GET', `${issuer}/__counters`)).json,
      control: (switches) => send('POST', `${issuer}/__control`, { json: switches }),
      takeBack: (login) => send('POST', `${issuer}/__revoke`, { json: { login } }),
      /** Whether an access token still opens the API. */
      takes: async (authorization) => (await send('GET', `${issuer}/me`, { headers: { Authorization: authorization } })).status === 200,
    };
  }

  /** Another Attaché in a folder of its own, not started. */
  newAttache(name, { ports, publicUrl }) {
    const attache = new Attache(this.binary, {
      folder: join(this.folder, name),
      ports,
      publicUrl,
      appUrl: this.app.url,
      oidcIssuer: this.oidc.issuer,
      authlibIssuer: this.authlib.issuer,
      oauthlibIssuer: this.oauthlib.issuer,
      keyFile: this.keyFile,
    });
    this.closers.push(() => attache.process.kill());
    return attache;
  }

  /** A browser with no history. */
  async person(more) {
    const person = await this.browser.person(this.scenario, more);
    this.people.push(person);
    return person;
  }

  /** Connects from the link to the app, and answers where the browser came out, as a URL. */
  async connect({ provider, endUser, attache = this.attache, person, login, ...more }) {
    const who = person ?? (await this.person());
    const link = await attache.link({ end_user: endUser, providers: [provider], return_url: this.app.returnUrl, ...more });
    const status = await who.open(link.connect_url);
    if (status !== 200) throw new Error(`the link answered ${status}: ${await who.heading()}`);
    await who.choose(provider);
    await who.agree(login);
    return { landed: new URL(who.page.url()), link, person: who };
  }

  async endScenario() {
    await Promise.all(this.people.splice(0).map((person) => person.close()));
  }

  async close() {
    for (const close of this.closers.splice(0).reverse()) await close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The key that the signing clients prove themselves with, in the forms that each side wants. */
function writeKeys(folder) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const paths = { pem: join(folder, 'key.pem'), publicPem: join(folder, 'public.pem'), jwk: join(folder, 'public.jwk') };
  mkdirSync(folder, { recursive: true });
  writeFileSync(paths.pem, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(paths.publicPem, publicKey.export({ type: 'spki', format: 'pem' }));
  writeFileSync(paths.jwk, JSON.stringify({ ...publicKey.export({ format: 'jwk' }), kid: 'interop' }));
  return paths;
}
