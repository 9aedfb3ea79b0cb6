// The relay against other ways of passing states on, in one run on one machine: `make against`.
//
// Each system gets the same clients, sessions and states, in turn, ROUNDS times; the medians are printed. The clients are
// in this process, so what they cost themselves is in every latency alike. CPU time is that of the system alone, its Redis
// included.

import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { freePort, start, systems } from './systems.mjs';

const ROUNDS = 3;
const SESSIONS = 100;
const FOLLOWERS = 4;
const STATES_PER_SECOND = 20;
const SECONDS = Number(process.argv[2] ?? 5);
const IDLE = 4000;
/** The kernel counts CPU time in hundredths of a second. */
const TICK_MS = 10;
const PAD = 'x'.repeat(330);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const now = () => Number(process.hrtime.bigint() / 1000n);

function quantile(numbers, part) {
  return numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * part))];
}

function cpuMs(processes) {
  const ticks = processes.map(({ pid }) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, each) => sum + each, 0) * TICK_MS;
}

function residentKib({ pid }) {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}

/** The nodes of a system, one or two over a Redis of their own. */
async function stage(system, over) {
  const ports = [await freePort()];
  const processes = [];
  let redis;
  if (over) {
    const port = await freePort();
    processes.push(
      await start('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', ''], {}, /Ready to accept/),
    );
    redis = `redis://127.0.0.1:${port}`;
    ports.push(await freePort());
  }
  for (const port of ports) processes.push(await system.start(port, redis));
  const stop = async () => {
    for (const child of processes.reverse()) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  };
  return { ports, processes, stop };
}

/** One driver in each session on the first node, its followers on the last. */
async function load(system, over) {
  const { ports, processes, stop } = await stage(system, over);
  const [near, far] = [ports[0], ports[ports.length - 1]];
  const latencies = [];
  const sockets = [];
  const drivers = [];
  for (let n = 0; n < SESSIONS; n++) {
    const session = await system.session(near);
    for (let follower = 0; follower < FOLLOWERS; follower++) {
      const socket = await system.open(far, session);
      socket.on('message', (data) => {
        const text = data.toString();
        if (!system.isState(text)) return void system.alive?.(socket, text);
        const at = /"at":(\d+)/.exec(text);
        if (at) latencies.push(now() - Number(at[1]));
      });
      sockets.push(socket);
    }
    drivers.push(await system.open(near, session));
  }
  const say = (driver) => system.say(driver, `{"tutorialId":"react-basics","at":${now()},"pad":"${PAD}"}`);
  // Everybody is in, and whoever has to decide who drives has done so.
  drivers.forEach(say);
  await sleep(1000);
  latencies.length = 0;

  const before = cpuMs(processes);
  const began = now();
  let said = 0;
  while (said < SECONDS * SESSIONS * STATES_PER_SECOND) {
    const due = ((now() - began) / 1e6) * SESSIONS * STATES_PER_SECOND;
    for (; said < due; said++) say(drivers[said % SESSIONS]);
    await sleep(1);
  }
  await sleep(500);
  const cpu = cpuMs(processes) - before;
  sockets.concat(drivers).forEach((socket) => socket.terminate());
  await stop();
  return {
    cpu: (cpu * 1000) / latencies.length,
    median: quantile(latencies, 0.5) / 1000,
    late: quantile(latencies, 0.99) / 1000,
    lost: 1 - latencies.length / (said * FOLLOWERS),
  };
}

/** Sockets that say nothing, two to a session. */
async function idle(system) {
  const { ports, processes, stop } = await stage(system, false);
  const empty = residentKib(processes[0]);
  const sockets = [];
  for (let n = 0; n < IDLE / 2; n++) {
    const session = await system.session(ports[0]);
    sockets.push(await system.open(ports[0], session), await system.open(ports[0], session));
  }
  await sleep(1000);
  const each = (residentKib(processes[0]) - empty) / IDLE;
  sockets.forEach((socket) => socket.terminate());
  await stop();
  return { empty: empty / 1024, each };
}

const results = new Map();
for (let round = 0; round < ROUNDS; round++) {
  for (const system of systems) {
    const measured = { idle: await idle(system), one: await load(system, false) };
    if (!system.alone) measured.two = await load(system, true);
    results.set(system.name, [...(results.get(system.name) ?? []), measured]);
    console.error(`${system.name}, round ${round + 1} of ${ROUNDS}`, JSON.stringify(measured));
  }
}

const median = (name, part, figure) =>
  quantile(
    results.get(name).map((one) => one[part]?.[figure] ?? NaN),
    0.5,
  );
const rows = [
  ['one node: CPU time per state delivered', 'one', 'cpu', 'µs', 1],
  ['one node: a state takes, median', 'one', 'median', 'ms', 2],
  ['one node: a state takes, 99th percentile', 'one', 'late', 'ms', 2],
  ['two nodes over Redis: CPU time per state delivered', 'two', 'cpu', 'µs', 1],
  ['two nodes over Redis: a state takes, median', 'two', 'median', 'ms', 2],
  ['two nodes over Redis: a state takes, 99th percentile', 'two', 'late', 'ms', 2],
  ['resident memory of an empty node', 'idle', 'empty', 'MiB', 1],
  ['resident memory per idle socket', 'idle', 'each', 'KiB', 1],
];
const names = systems.map(({ name }) => name);
console.log(`| | ${names.join(' | ')} |\n| --- |${' --- |'.repeat(names.length)}`);
for (const [label, part, figure, unit, digits] of rows) {
  const base = median(names[0], part, figure);
  const cells = names.map((name) => {
    const value = median(name, part, figure);
    if (Number.isNaN(value)) return '–';
    const ratio = name === names[0] ? '' : ` (×${(value / base).toFixed(1)})`;
    return `${value.toFixed(digits)} ${unit}${ratio}`;
  });
  console.log(`| ${label} | ${cells.join(' | ')} |`);
}
const lost = names.filter((name) => results.get(name).some((one) => one.one.lost > 0 || one.two?.lost > 0));
console.log(lost.length > 0 ? `\nStates were lost by: ${lost.join(', ')}.` : '\nNo state was lost by any.');
process.exit();
