// Real Chromium, and people who use it: each a browser context, with cookies of their own.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const STEP_WITHIN_MS = 15_000;
const VIEWS = [
  ['desktop', { width: 1280, height: 800 }],
  ['phone', { width: 390, height: 844 }],
];

export async function startBrowser(executablePath, shots) {
  mkdirSync(shots, { recursive: true });
  const browser = await chromium.launch({
    executablePath,
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // The providers' pages name fonts on the Web; nothing outside this machine is asked for.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
  return {
    close: () => browser.close(),
    /** `more`: options of the context, such as `ignoreHTTPSErrors`. */
    async person(scenario, more = {}) {
      const context = await browser.newContext({ viewport: VIEWS[0][1], ...more });
      context.setDefaultTimeout(STEP_WITHIN_MS);
      return new Person(context, await context.newPage(), (name) => join(shots, `${scenario}-${name}`));
    },
  };
}

export class Person {
  constructor(context, page, shotPath) {
    this.context = context;
    this.page = page;
    this.shotPath = shotPath;
  }

  close() {
    return this.context.close();
  }

  /** Opens a page, and answers its status. */
  async open(url) {
    const answer = await this.page.goto(url);
    return answer.status();
  }

  heading() {
    return this.page.locator('h1').first().innerText();
  }

  /** On the connect page: goes on to this provider. */
  async choose(provider) {
    await this.page.locator(`button[name=provider][value="${provider}"]`).click();
  }

  /** At the provider: logs in, and agrees. Returns once the browser is back, on whatever page. */
  async agree(login = 'megan') {
    const page = this.page;
    const oidcLogin = page.locator('input[name=login]');
    const authlibUser = page.locator('input[name=user]');
    await oidcLogin.or(authlibUser).waitFor();
    if (await authlibUser.isVisible()) {
      await authlibUser.fill(login);
      await this.leave(() => page.getByRole('button', { name: 'Allow' }).click());
      return;
    }
    await this.signIn(login);
    await this.leave(() => page.getByRole('button', { name: 'Continue' }).click());
  }

  /** At node-oidc-provider: its login page. */
  async signIn(login = 'megan') {
    await this.page.locator('input[name=login]').fill(login);
    await this.page.locator('input[name=password]').fill('anything');
    await this.page.getByRole('button', { name: 'Sign-in' }).click();
    await this.page.locator('input[name=prompt][value=consent]').waitFor({ state: 'attached' });
  }

  /** At the provider: says no. */
  async deny() {
    const cancel = this.page.getByRole('link', { name: 'Cancel' });
    const authlibUser = this.page.locator('input[name=user]');
    await cancel.or(authlibUser).waitFor();
    if (await authlibUser.isVisible()) {
      await authlibUser.fill('megan');
      await this.leave(() => this.page.getByRole('button', { name: 'Deny' }).click());
      return;
    }
    await this.leave(() => cancel.click());
  }

  /** Does what makes the browser leave this origin, and waits for the next page of another. Its status stands in `landed`. */
  async leave(act) {
    const origin = new URL(this.page.url()).origin;
    let status = null;
    const isPage = (answer) => answer.request().isNavigationRequest() && answer.frame() === this.page.mainFrame();
    const note = (answer) => {
      if (isPage(answer)) status = answer.status();
    };
    this.page.on('response', note);
    try {
      await act();
      await this.page.waitForURL((url) => url.origin !== origin, { timeout: 60_000 });
    } finally {
      this.page.off('response', note);
    }
    this.landed = status;
  }

  /**
   * Stops the browser on its way back, before it asks for the callback: `act` makes it go there. Answers the request that it was about to
   * make, `{url, method, body}`.
   */
  async heldCallback(act) {
    const cdp = await this.context.newCDPSession(this.page);
    await cdp.send('Fetch.enable', { patterns: [{ urlPattern: '*/oauth/callback/*', requestStage: 'Request' }] });
    const held = new Promise((resolve) => {
      cdp.once('Fetch.requestPaused', async ({ requestId, request }) => {
        await cdp.send('Fetch.fulfillRequest', { requestId, responseCode: 200, body: Buffer.from('<title>held</title>').toString('base64') });
        resolve({ url: request.url, method: request.method, body: request.postData });
      });
    });
    await act();
    const request = await held;
    await this.page.waitForURL((url) => url.pathname.includes('/oauth/callback/'));
    await cdp.detach();
    return request;
  }

  /** The page in both widths, light and dark. */
  async shoot(name) {
    for (const [view, size] of VIEWS) {
      await this.page.setViewportSize(size);
      for (const colorScheme of ['light', 'dark']) {
        await this.page.emulateMedia({ colorScheme });
        await this.page.screenshot({ path: this.shotPath(`${name}-${view}-${size.width}-${colorScheme}.png`), fullPage: true });
        const tooWide = await this.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (tooWide > 0) throw new Error(`the page ${name} is ${tooWide} px too wide at ${size.width}`);
      }
    }
    await this.page.emulateMedia({ colorScheme: 'light' });
    await this.page.setViewportSize(VIEWS[0][1]);
  }
}
