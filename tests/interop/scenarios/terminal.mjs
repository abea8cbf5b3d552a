// `attache connect`, in a terminal: while no server runs on the store, and beside one that does.

import { spawn } from 'node:child_process';
import { freePorts } from '../rig/processes.mjs';
import { assert, callsAs, eventually } from './check.mjs';
import { typeCode } from './device.mjs';

const ENDS_WITHIN_MS = 40_000;

async function stopped(world, name, provider) {
  const [proxy, publicPort, admin] = await freePorts(3);
  const attache = world.newAttache(name, { ports: { proxy, publicPort, admin }, publicUrl: `http://localhost:${publicPort}` });
  attache.extra = [provider];
  attache.write();
  return attache;
}

/** Runs the command. Its output is no terminal, so that it opens no browser by itself. */
function terminal(attache, args) {
  const child = spawn(attache.binary, [...args, '-c', 'routes.yaml'], { cwd: attache.where.folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  return {
    kill: () => child.kill('SIGKILL'),
    ended,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    said: () => said,
    /** The first URL that it printed, once the line is whole. */
    url: () => /(https?:\/\/\S+)\s/.exec(said)?.[1] ?? null,
  };
}

async function endsWell(command) {
  await eventually(async () => command.hasEnded(), Boolean, ENDS_WITHIN_MS, `the command said ${command.said()} and`);
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

/** Runs the command, and opens what it tells in a real browser. */
async function connectsInABrowser(world, attache, endUser) {
  const command = terminal(attache, ['connect', 'oidc-native', '--end-user', endUser]);
  try {
    const url = await eventually(async () => command.url() ?? (command.hasEnded() ? 'ended' : null), Boolean, 15_000, 'no URL is told');
    assert.notEqual(url, 'ended', command.said());
    const person = await world.person();
    await person.open(url);
    await person.choose('oidc-native');
    await person.agree('megan');
    assert.equal(person.landed, 200);
    await endsWell(command);
  } finally {
    command.kill();
  }
}

export const scenarios = {
  'terminal-connect': async (world) => {
    const endUser = 'megan@personalemail.com';
    const attache = await stopped(world, 'terminal', 'oidc-native');
    await connectsInABrowser(world, attache, endUser);
    await serves(attache, 'oidc-native', endUser);
  },

  'terminal-connect-beside-a-server': async (world) => {
    const endUser = 'megan+terminal@personalemail.com';
    await world.attache.add('oidc-native');
    await connectsInABrowser(world, world.attache, endUser);
    await callsAs(world.attache, 'oidc-native', endUser, 'megan');
  },

  'terminal-connect-by-device': async (world) => {
    const endUser = 'megan@personalemail.com';
    const attache = await stopped(world, 'terminal-device', 'oidc-device');
    const command = terminal(attache, ['connect', 'oidc-device', '--end-user', endUser, '--device']);
    try {
      const code = () => /\b[A-Z]{4}-[A-Z]{4}\b/.exec(command.said())?.[0];
      const found = await eventually(async () => code() ?? (command.hasEnded() ? 'ended' : null), Boolean, 15_000, 'no code is told');
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
