// The whole journey through PrintPixie in a browser; test.sh calls it.
//
//     journey.mjs INFO_JSON FOLDER       what run.py told, and where the screenshots go

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const at = JSON.parse(readFileSync(process.argv[2]));
const folder = process.argv[3];
const megan = "megan@personalemail.com";

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  // It has nothing to say to anybody but this machine.
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// Every page is watched: no script error, no refused resource, no request to elsewhere than this machine.
async function visitor(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 940 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  const odd = [];
  page.on("pageerror", (error) => odd.push(`script error: ${error}`));
  page.on("console", (message) => message.type() === "error" && odd.push(`console: ${message.text()}`));
  page.on("request", (request) => {
    if (!["localhost", "127.0.0.1"].includes(new URL(request.url()).hostname)) odd.push(`a request to ${request.url()}`);
  });
  return { page, odd, context };
}

const shot = async (page, name, options = {}) => page.screenshot({ path: `${folder}/${name}.png`, ...options });
const heading = (page, text) => page.getByRole("heading", { name: text }).waitFor();
const told = (page, text) => page.getByRole("status").filter({ hasText: text }).first().waitFor();
const done = (what) => console.log(`printpixie in ${browser.browserType().name()}: ${what}: ok`);

async function signIn(page) {
  await page.goto(at.app);
  await heading(page, "Your photos, on paper.");
  await page.getByRole("button", { name: /Megan/ }).click();
  await heading(page, "Hello Megan");
}

// From the button in the shop through Attaché's page and the drive's own, and back.
async function connect(page, button, person, name) {
  await page.getByRole("button", { name: button, exact: true }).click();
  await page.waitForURL(/\/connect\/cs_/);
  if (name) await shot(page, name);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.waitForURL(/\/authorize/);
  await page.getByLabel(person, { exact: true }).check();
  await page.getByRole("button", { name: "Allow" }).click();
  await page.waitForURL(`${at.app}/`);
}

const drive = (page, name) => page.getByRole("region", { name });

// Pictures are there when the browser could decode them; a broken one has no width.
async function pictures(page, within) {
  const images = within.locator("img");
  for (const image of await images.all()) {
    await image.scrollIntoViewIfNeeded();
    await image.evaluate((one) => one.decode());
  }
  await page.evaluate(() => window.scrollTo(0, 0));
  return images.evaluateAll((all) => all.filter((one) => one.complete && one.naturalWidth === 160).length);
}

// No sideways scrolling, and every control has a name and is large enough for a thumb.
async function fits(page) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `${page.url()} is ${wide} px too wide`);
  const small = await page.locator("button:visible, a.button:visible").evaluateAll((all) =>
    all.filter((one) => !one.textContent.trim() || one.getBoundingClientRect().height < 40).map((one) => one.outerHTML));
  assert.deepEqual(small, []);
}

// The contrast of every text with what is behind it, by WCAG 2.2 §1.4.3: 4.5, or 3 where it is large.
async function contrast(page) {
  const faint = await page.evaluate(() => {
    const parse = (text) => {
      const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
      return { red, green, blue, alpha };
    };
    const light = ({ red, green, blue }) => {
      const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
      return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
    };
    const behind = (node) => {
      for (let one = node; one; one = one.parentElement) {
        const colour = parse(getComputedStyle(one).backgroundColor);
        if (colour.alpha === 1) return colour;
      }
      return { red: 255, green: 255, blue: 255 };
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
      const style = getComputedStyle(node);
      const [one, other] = [light(parse(style.color)), light(behind(node))].sort((a, b) => b - a);
      const ratio = (one + 0.05) / (other + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.textContent.trim()}`);
    }
    return found;
  });
  assert.deepEqual(faint, [], `too faint at ${page.url()}`);
}

async function control(sandbox, switches) {
  const answer = await fetch(`${sandbox}/control`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(switches) });
  assert.equal(answer.status, 200);
}

try {
  const { page, odd, context } = await visitor();
  await page.goto(at.app);
  await contrast(page);
  await shot(page, "1-sign-in");
  await signIn(page);
  await fits(page);
  await shot(page, "2-nothing-connected");
  await connect(page, "Connect Lumen Drive", megan, "3-attache");
  await told(page, "Lumen Drive is connected.");
  done("one drive is connected");

  await page.getByRole("button", { name: "Connect Pinebox", exact: true }).click();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("button", { name: "Deny" }).click();
  await told(page, "You did not allow it");
  // Her name at the other drive is another one.
  await connect(page, "Connect Pinebox", "alex@personalemail.com");
  await told(page, "Pinebox is connected.");
  assert.equal(await pictures(page, drive(page, "Lumen Drive")), 12);
  assert.equal(await pictures(page, drive(page, "Pinebox")), 12);
  await contrast(page);
  await fits(page);
  done("thumbnails of two drives are seen");

  // By the keyboard, as by the mouse.
  await drive(page, "Lumen Drive").getByRole("checkbox", { name: "Lake at dawn" }).focus();
  await page.keyboard.press("Space");
  await drive(page, "Lumen Drive").getByText("Evening by the sea").click();
  await drive(page, "Pinebox").getByText("First ridge").click();
  await told(page, "3 prints, €1.05");
  await page.mouse.move(0, 0);
  await page.evaluate(() => (document.activeElement.blur(), window.scrollTo(0, 0)));
  await page.screenshot({ path: `${folder}/4-photos.jpg`, type: "jpeg", quality: 80 });     // docs/images/printpixie.jpg is this one
  await page.getByRole("button", { name: "Order prints" }).click();
  await heading(page, "Off to the printer!");
  assert.equal(await page.getByRole("cell", { name: "1600 × 1067" }).count(), 3);
  assert.equal(await page.getByRole("cell", { name: "13.5 × 9.0 cm" }).count(), 3);
  assert.equal(await pictures(page, page.getByRole("table")), 3);
  const bytes = await page.locator("td [title]").evaluateAll((all) => all.map((one) => parseInt(one.title, 10)));
  assert.ok(bytes.every((count) => count > 20_000), String(bytes));
  await contrast(page);
  await fits(page);
  await shot(page, "5-order");
  const order = page.url();
  done("an order has its photos in full size");

  await control(at.lumen, { revoke_user: megan });
  await page.goto(at.app);
  await page.getByText("Lumen Drive no longer lets us in.").waitFor();
  assert.equal(await pictures(page, drive(page, "Pinebox")), 12);
  await contrast(page);
  await shot(page, "6-connect-again");
  await connect(page, "Connect Lumen Drive again", megan);
  await told(page, "Lumen Drive is connected.");
  assert.equal(await pictures(page, drive(page, "Lumen Drive")), 12);
  done("a drive whose permission ended is connected again");

  const phone = await visitor({ viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark", storageState: await context.storageState() });
  await phone.page.goto(at.app);
  await pictures(phone.page, drive(phone.page, "Lumen Drive"));
  await drive(phone.page, "Lumen Drive").getByText("Lake at dawn").tap();
  await told(phone.page, "1 print, €0.35");
  await contrast(phone.page);
  await fits(phone.page);
  await phone.page.evaluate(() => window.scrollTo(0, 0));
  await shot(phone.page, "7-phone-dark");
  await phone.page.goto(order);
  await contrast(phone.page);
  await fits(phone.page);
  await shot(phone.page, "8-phone-dark-order");
  const wide = await visitor({ colorScheme: "dark", storageState: await context.storageState() });
  await wide.page.goto(at.app);
  await pictures(wide.page, drive(wide.page, "Lumen Drive"));
  await contrast(wide.page);
  await shot(wide.page, "9-dark");
  done("a phone at night can order too");

  const plain = await visitor({ javaScriptEnabled: false });
  await plain.page.goto(at.app);
  await plain.page.getByRole("button", { name: /Megan/ }).click();
  await drive(plain.page, "Pinebox").getByText("Frost").click();
  await plain.page.getByRole("button", { name: "Order prints" }).click();
  await heading(plain.page, "Off to the printer!");
  done("it works without script");

  await page.goto(at.app);
  await drive(page, "Pinebox").getByRole("button", { name: "Disconnect Pinebox" }).click();
  await told(page, "Pinebox is disconnected, and it was told to forget PrintPixie.");
  await page.getByRole("button", { name: "Connect Pinebox", exact: true }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await heading(page, "Your photos, on paper.");
  done("a drive is disconnected, and she signs out");

  for (const one of [odd, phone.odd, wide.odd, plain.odd]) assert.deepEqual(one, []);
} finally {
  await browser.close();
}
