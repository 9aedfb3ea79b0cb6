// Replaces every node, one after another, while the controllers of 500 sessions send steps. `kubernetes` uses the times
// of the chart: no new sockets, then 5 s, then SIGTERM. `compose` sends SIGTERM, and the balancer has to detect it. The
// default is both.
import { setTimeout as pause } from 'node:timers/promises';
import { connect } from 'node:net';
import { Checks, Deployment, sendSteps, equal, startPairs, until } from './support.mjs';

const PAIRS = 500;
/** The interval between two steps of a session, ms. */
const INTERVAL = 2000;
/** The chart's wait before SIGTERM, ms. */
const PRE_STOP = 5000;
/** The time limit for the replacement of a node, s: the wait, the drain and the start. */
const LIMIT = 35;
/** The limit of lost connections in one second: two waves of a drain and the failed attempts of their clients. */
const MOST_PER_SECOND = 200;

const checks = new Checks();

/** Sends a command to the balancer. */
function sendCommand(deployment, command) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(deployment.socket, () => socket.end(`${command}\n`));
    socket.on('data', (data) => (answer += data)).on('error', reject);
    socket.on('close', () => (answer.trim() === '' ? resolve() : reject(new Error(answer.trim()))));
  });
}

async function replace(deployment, node, kind) {
  const began = Date.now();
  if (kind === 'kubernetes') {
    await sendCommand(deployment, `set server relays/${node.name} state drain`);
    await pause(PRE_STOP);
  }
  await node.program.stop('SIGTERM');
  equal(node.program.child.exitCode, 0, `the exit code of ${node.name}`);
  await deployment.startNode(node);
  if (kind === 'kubernetes') await sendCommand(deployment, `set server relays/${node.name} state ready`);
  await until(`${node.name} in the balancer`, async () => (await deployment.serversUp()) === 3);
  return (Date.now() - began) / 1000;
}

const quantile = (values, share) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];

async function roll(kind) {
  const deployment = await Deployment.start({ prometheus: false });
  const pairs = await startPairs(deployment.address, PAIRS);
  const halt = sendSteps(pairs, INTERVAL);
  await until('a step in every session', () => pairs.every(({ seen }) => seen > 0));
  const seconds = [];
  for (const node of deployment.nodes) seconds.push(await replace(deployment, node, kind));

  await checks.check(`${kind}: no session is lost`, async () => {
    const before = pairs.map(({ sent }) => sent);
    await until('a new step in every session', () => pairs.every(({ seen }, index) => seen > before[index]));
    equal(pairs.filter(({ ended }) => ended > 0).length, 0, 'sessions that ended');
    equal(pairs.filter(({ disordered }) => disordered > 0).length, 0, 'sessions with steps in the wrong order');
  });
  await checks.check(`${kind}: no client loses its role or its identity`, () => {
    equal(pairs.filter(({ rolesLost }) => rolesLost > 0).length, 0, 'controllers that lost their role');
    equal(
      pairs.reduce((sum, { notResumed }) => sum + notResumed, 0),
      0,
      'clients that were not resumed',
    );
    equal(
      pairs.every(({ controller, follower }) => controller.isActive() && follower.isPassive()),
      true,
      'all roles kept',
    );
  });

  halt();
  const lost = pairs.flatMap((pair) => pair.lost);
  const perSecond = new Map();
  for (const time of lost) perSecond.set(Math.floor(time / 1000), (perSecond.get(Math.floor(time / 1000)) ?? 0) + 1);
  const most = Math.max(...perSecond.values());
  await checks.check(`${kind}: clients reconnect in waves, within the time limit`, () => {
    equal(most <= MOST_PER_SECOND, true, `at most ${MOST_PER_SECOND} connections lost in one second, with ${most}`);
    equal(
      seconds.every((time) => time <= LIMIT),
      true,
      `at most ${LIMIT} s for each node, with ${seconds}`,
    );
  });
  const silences = pairs.map(({ longestSilence }) => longestSilence);
  console.log(`      ${kind}, ${pairs.length * 2} clients: ${lost.length} reconnects, at most ${most} in one second`);
  console.log(`      seconds for each node: ${seconds.map((time) => time.toFixed(1)).join(', ')}`);
  const [half, nearly, all] = [0.5, 0.99, 1].map((share) => `${(quantile(silences, share) / 1000).toFixed(2)} s`);
  console.log(`      a step each ${INTERVAL / 1000} s; longest time between two: p50 ${half}, p99 ${nearly}, all ${all}`);
  const sum = (what) => pairs.reduce((total, pair) => total + pair[what], 0);
  console.log(`      steps sent ${sum('sent')}, seen ${sum('steps')} with those that controllers repeat after a reconnect`);
  for (const pair of pairs) pair.stop();
  await deployment.stop();
}

for (const kind of process.argv[2] ? [process.argv[2]] : ['kubernetes', 'compose']) await roll(kind);
checks.end();
