// `attache connect`, in a terminal, while no server runs on the store.

import { spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts } from '../rig/processes.mjs';
import { assert, callsAs, eventually } from './check.mjs';
import { typeCode } from './device.mjs';

const ENDS_WITHIN_MS = 40_000;

async function folder(world, name, provider) {
  const [proxy, publicPort, admin] = await freePorts(3);
  const attache = world.newAttache(name, { ports: { proxy, publicPort, admin }, publicUrl: `http://localhost:${publicPort}` });
  attache.extra = [provider];
  attache.write();
  return attache;
}

/** Runs the command, with a browser that only notes what it should open. */
function terminal(attache, args) {
  const { folder } = attache.where;
  const opened = join(folder, 'opened');
  const browser = join(folder, 'browser.sh');
  writeFileSync(browser, `#!/bin/sh\nprintf '%s' "$1" > '${opened}'\n`);
  chmodSync(browser, 0o755);
  const child = spawn(attache.binary, [...args, '-c', 'routes.yaml'], { cwd: folder, env: { ...process.env, BROWSER: browser }, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  return {
    kill: () => child.kill('SIGKILL'),
    ended,
    said: () => said,
    /** The first URL that it printed, or opened. */
    url: () => (existsSync(opened) && readFileSync(opened, 'utf8')) || /https?:\/\/\S+/.exec(said)?.[0].replace(/[.,;)>"']+$/, '') || null,
    has: () => child.exitCode !== null,
  };
}

async function endsWell(command) {
  await eventually(async () => command.has(), Boolean, ENDS_WITHIN_MS, `the command said ${command.said()} and`);
  assert.equal(await command.ended, 0, command.said());
}

async function serves(attache, provider, endUser) {
  await attache.start();
  try {
    await callsAs(attache, provider, endUser, 'megan');
  } finally {
    await attache.process.terminate();
  }
}

export const scenarios = {
  'terminal-connect': async (world) => {
    const endUser = 'megan@personalemail.com';
    const attache = await folder(world, 'terminal', 'oidc-native');
    const command = terminal(attache, ['connect', 'oidc-native', '--end-user', endUser]);
    try {
      const url = await eventually(async () => command.url() ?? (command.has() ? 'ended' : null), Boolean, 15_000, 'no URL is told');
      assert.notEqual(url, 'ended', command.said());
      const person = await world.person();
      await person.open(url);
      const button = person.page.locator('button[name=provider]');
      if (await button.isVisible()) await button.click();
      await person.agree('megan');
      assert.equal(person.landed, 200);
      await person.shoot('terminal-connected');
      await endsWell(command);
    } finally {
      command.kill();
    }
    await serves(attache, 'oidc-native', endUser);
  },

  'terminal-connect-by-device': async (world) => {
    const endUser = 'megan@personalemail.com';
    const attache = await folder(world, 'terminal-device', 'oidc-device');
    const command = terminal(attache, ['connect', 'oidc-device', '--end-user', endUser, '--device']);
    try {
      const code = () => /\b[A-Z]{4}-[A-Z]{4}\b/.exec(command.said())?.[0];
      const found = await eventually(async () => code() ?? (command.has() ? 'ended' : null), Boolean, 15_000, 'no code is told');
      assert.notEqual(found, 'ended', command.said());
      assert.ok(command.said().includes(`${world.oidc.issuer}/device`), command.said());
      await typeCode(await world.person(), { uri: `${world.oidc.issuer}/device`, code: found, login: 'megan' });
      await endsWell(command);
    } finally {
      command.kill();
    }
    await serves(attache, 'oidc-device', endUser);
  },
};
