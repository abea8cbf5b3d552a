// Child processes with their logs in files, and free ports for them.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const READY_WITHIN_MS = 20_000;
const STOPPED_WITHIN_MS = 40_000;

/** Ports that nobody listens on. All are held at once, so that they differ. */
export async function freePorts(count) {
  const servers = [];
  for (let held = 0; held < count; held += 1) {
    const server = createServer();
    await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
    servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

export class Process {
  constructor(name, command, { folder, env = {} }) {
    this.name = name;
    this.command = command;
    this.folder = folder;
    this.env = { ...process.env, ...env };
    this.logPath = join(folder, `${name}.log`);
    this.mark = 0;
    this.child = null;
  }

  /** Starts it; returns once `ready` stands in its log of this life. */
  async start(ready) {
    this.launch();
    const giveUp = Date.now() + READY_WITHIN_MS;
    while (!this.log().includes(ready)) {
      if (this.hasEnded()) throw new Error(`${this.name} ended with ${this.child.exitCode ?? this.child.signalCode}:\n${this.log().slice(-3000)}`);
      if (Date.now() > giveUp) {
        await this.kill();
        throw new Error(`${this.name} was not ready within ${READY_WITHIN_MS / 1000} s:\n${this.log().slice(-3000)}`);
      }
      await sleep(20);
    }
  }

  launch() {
    const log = openSync(this.logPath, 'a');
    this.mark = readFileSync(this.logPath).length;
    const [program, ...args] = this.command;
    this.child = spawn(program, args, { cwd: this.folder, env: this.env, stdio: ['ignore', log, log] });
    this.ended = new Promise((resolve) => {
      this.child.once('exit', (code, signal) => resolve(code ?? signal));
      this.child.once('error', (error) => resolve(error.message));
    });
    closeSync(log);
  }

  log() {
    return readFileSync(this.logPath).subarray(this.mark).toString();
  }

  hasEnded() {
    return this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null;
  }

  async kill() {
    if (this.child === null || this.hasEnded()) return;
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** Asks it to stop, and answers its exit code. */
  async terminate() {
    this.child.kill('SIGTERM');
    return Promise.race([this.ended, sleep(STOPPED_WITHIN_MS, 'still running', { ref: false })]);
  }
}
