// What frames cost the servers of a Redis Cluster of three primaries: `make bench-cluster`.
//
// Every node has the controllers of some sessions, and their followers are on the next node. The CPU time is that of the
// servers alone, between the first state and the last. RELAY_BINARY names another build, to compare with.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { start } from './systems.mjs';

const BINARY = process.env.RELAY_BINARY ?? new URL('../../target/release/gitorial-relay', import.meta.url).pathname;
const PRIMARIES = 3;
const SESSIONS = 48;
const RATES = (process.argv[3] ?? '20').split(',').map(Number);
const SECONDS = Number(process.argv[2] ?? 10);
const PAD = 'x'.repeat(330);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const now = () => Number(process.hrtime.bigint() / 1000n);

/** A free port whose bus port, 10000 above, exists too. */
async function port() {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const found = server.address().port;
    server.close();
    await once(server, 'close');
    if (found < 55535) return found;
  }
}

const ask = (at, ...words) => execFileSync('redis-cli', ['-p', String(at), ...words], { encoding: 'utf8' });

async function cluster(folder) {
  const ports = [];
  const processes = [];
  for (let n = 0; n < PRIMARIES; n++) {
    const at = await port();
    const args = ['--port', String(at), '--bind', '127.0.0.1', '--save', '', '--dir', folder, '--cluster-enabled', 'yes'];
    args.push('--cluster-config-file', `${at}.conf`);
    processes.push(await start('redis-server', args, {}, /Ready to accept/));
    ports.push(at);
  }
  const all = ports.map((at) => `127.0.0.1:${at}`);
  execFileSync('redis-cli', ['--cluster', 'create', ...all, '--cluster-yes']);
  while (!ports.every((at) => ask(at, 'CLUSTER', 'INFO').includes('cluster_state:ok'))) await sleep(50);
  return { ports, processes };
}

function cpuSeconds(at) {
  const info = ask(at, 'INFO', 'cpu');
  const value = (name) => Number(new RegExp(`${name}:([0-9.]+)`).exec(info)[1]);
  return value('used_cpu_user') + value('used_cpu_sys');
}

/** How often the servers ran each of these commands. */
function calls(ports, names) {
  const all = ports.map((at) => ask(at, 'INFO', 'commandstats'));
  const of = (info, name) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(info)?.[1] ?? 0);
  return names.reduce((sum, name) => sum + all.reduce((part, info) => part + of(info, name), 0), 0);
}

async function nodes(count, ports) {
  const redis = `redis-cluster://127.0.0.1:${ports[0]}`;
  const found = [];
  for (let n = 0; n < count; n++) {
    const at = await port();
    const args = ['serve', '--listen', `127.0.0.1:${at}`, '--redis-url', redis, '--log-level', 'warn'];
    const child = await start(BINARY, args, {}, /listening/);
    while ((await fetch(`http://127.0.0.1:${at}/readyz`)).status !== 200) await sleep(20);
    found.push({ at, child });
  }
  await sleep(1000);
  return found;
}

async function open(at, session, client) {
  const socket = new WebSocket(`ws://127.0.0.1:${at}/ws?session=${session}&client=${client}`);
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'protocol_handshake', protocol_version: 1 }));
  return socket;
}

async function load(count, rate) {
  const folder = mkdtempSync(join(tmpdir(), 'relay-cluster-'));
  const { ports, processes } = await cluster(folder);
  const relays = await nodes(count, ports);
  const idleFrom = ports.map(cpuSeconds);
  await sleep(5000);
  const idle = ports.map((at, n) => (cpuSeconds(at) - idleFrom[n]) / 5);
  let arrived = 0;
  const sockets = [];
  const drivers = [];
  for (let n = 0; n < SESSIONS; n++) {
    const [near, far] = [relays[n % count].at, relays[(n + 1) % count].at];
    const answer = await fetch(`http://127.0.0.1:${near}/api/sessions`, { method: 'POST', body: '{}' });
    const { id } = await answer.json();
    const driver = await open(near, id, 'driver');
    const data = { preferredDirection: 'ACTIVE', reason: 'bench' };
    driver.send(JSON.stringify({ type: 'coordinate_sync_direction', clientId: 'driver', data }));
    const follower = await open(far, id, 'follower');
    follower.on('message', (text) => {
      if (text.includes('"state_update"')) arrived += 1;
    });
    drivers.push(driver);
    sockets.push(driver, follower);
  }
  const say = (driver) =>
    driver.send(JSON.stringify({ type: 'state_update', clientId: 'driver', data: { at: now(), pad: PAD } }));
  await sleep(1500);
  arrived = 0;
  const before = ports.map(cpuSeconds);
  const publishes = calls(ports, ['publish', 'spublish']);
  const began = now();
  let said = 0;
  while (said < SECONDS * SESSIONS * rate) {
    const due = Math.min(((now() - began) / 1e6) * SESSIONS * rate, SECONDS * SESSIONS * rate);
    for (; said < due; said++) say(drivers[said % SESSIONS]);
    await sleep(1);
  }
  await sleep(500);
  const seconds = (now() - began) / 1e6;
  const cpu = ports.map((at, n) => cpuSeconds(at) - before[n]);
  const published = calls(ports, ['publish', 'spublish']) - publishes;
  sockets.forEach((socket) => socket.terminate());
  for (const child of [...relays.map((relay) => relay.child), ...processes]) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  rmSync(folder, { recursive: true });
  return { nodes: count, rate, frames: arrived / seconds, lost: said - arrived, cpu, idle, published };
}

for (const rate of RATES) {
  for (const count of [2, 8]) {
    const found = await load(count, rate);
    const each = (numbers) => numbers.map((number) => number.toFixed(2)).join(', ');
    console.log(
      `${found.nodes} nodes, ${rate} states/s in each of ${SESSIONS} sessions: ${found.frames.toFixed(0)} frames/s, ` +
        `${found.lost} lost; CPU seconds in ${SECONDS} s: ${each(found.cpu)}; publications: ${found.published}; ` +
        `idle: ${found.idle.map((share) => `${(share * 100).toFixed(1)} %`).join(', ')}`,
    );
  }
}
