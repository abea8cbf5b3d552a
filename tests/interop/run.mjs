// Runs the scenarios, one after the other, against one set of servers. `run.py` starts this once all that it needs is there.
//
//     node run.mjs --attache BINARY --chromium PROGRAM --shots DIR [--only NAME]...

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { World } from './rig/world.mjs';
import { scenarios as appTokens } from './scenarios/app-tokens.mjs';
import { scenarios as clients } from './scenarios/clients.mjs';
import { scenarios as completion } from './scenarios/completion.mjs';
import { scenarios as connecting } from './scenarios/connecting.mjs';
import { scenarios as device } from './scenarios/device.mjs';
import { scenarios as ending } from './scenarios/ending.mjs';
import { scenarios as formPost } from './scenarios/form-post.mjs';
import { scenarios as oauth1 } from './scenarios/oauth1.mjs';
import { scenarios as refusals } from './scenarios/refusals.mjs';
import { scenarios as restart } from './scenarios/restart.mjs';
import { scenarios as terminal } from './scenarios/terminal.mjs';

const ENDS_WITHIN_MS = 120_000;
const ALL = { ...connecting, ...refusals, ...restart, ...formPost, ...clients, ...completion, ...ending, ...appTokens, ...device, ...terminal, ...oauth1 };

const { values: args } = parseArgs({
  options: {
    attache: { type: 'string' },
    chromium: { type: 'string' },
    shots: { type: 'string' },
    only: { type: 'string', multiple: true, default: [] },
  },
});
const unknown = args.only.filter((name) => !(name in ALL));
if (unknown.length > 0) {
  console.error(`no scenario is called ${unknown.join(', ')}; there are: ${Object.keys(ALL).join(', ')}`);
  process.exit(2);
}
const names = Object.keys(ALL).filter((name) => args.only.length === 0 || args.only.includes(name));

let [passed, failed] = [0, 0];
const world = await World.start(args);
process.once('SIGINT', () => world.close().then(() => process.exit(130)));
process.once('SIGTERM', () => world.close().then(() => process.exit(143)));
try {
  for (const name of names) await runOne(name);
} finally {
  await world.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

async function runOne(name) {
  world.scenario = name;
  const began = Date.now();
  const logFrom = world.attache.process.log().length;
  const late = new AbortController();
  try {
    const limit = sleep(ENDS_WITHIN_MS, null, { signal: late.signal }).then(() => {
      throw new Error(`it did not end within ${ENDS_WITHIN_MS / 1000} s`);
    });
    limit.catch(() => {});
    await Promise.race([ALL[name](world), limit]);
    passed += 1;
    console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    const [why, ...more] = stripVTControlCharacters(error.message).split('\n');
    console.log(`FAILED ${name}: ${why}`);
    for (const line of more.filter((text) => text.trim() !== '')) console.log(`    ${line}`);
    console.log(where(error));
    await tellState(logFrom);
  } finally {
    late.abort();
    await world.endScenario();
    await standUp();
  }
}

/** The scenario's own line in the stack. */
function where(error) {
  const line = error.stack?.split('\n').find((at) => at.includes('/scenarios/'));
  return `    ${line?.trim() ?? error.stack}`;
}

/** What each browser shows, and what Attaché said last. */
async function tellState(logFrom) {
  for (const person of world.people) {
    const shown = await person.page.locator('body').innerText({ timeout: 1000 }).catch(() => '');
    console.log(`    a browser is at ${person.page.url()}: ${shown.replaceAll(/\s+/g, ' ').slice(0, 300)}`);
    await person.page.screenshot({ path: person.shotPath('FAILED.png') }).catch(() => {});
  }
  const log = world.attache.process.log().slice(logFrom).trimEnd().split('\n').slice(-12);
  for (const line of log) console.log(`    attache: ${line.slice(0, 600)}`);
}

/** A scenario that failed may have left Attaché down, or the provider misbehaving. */
async function standUp() {
  await world.oidc.control({ hang_token: false, fail_authorize: null });
  if (world.attache.process.hasEnded()) await world.attache.start();
}
