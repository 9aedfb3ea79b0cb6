// Tests the files of the deployment with three nodes, Redis, the balancer and Prometheus as processes of this machine,
// which use the files that compose.yaml mounts. Grafana is not run, but its queries are.
import { readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { at, Checks, Deployment, equal, RelayClient, sendSteps, startPairs, step, until, WebSocket } from './support.mjs';

/** Panels that have data only during a failure. Their queries must still be valid. */
const ONLY_DURING_FAILURES = ['Commands that failed'];

const checks = new Checks();
const text = (path) => readFileSync(at(path), 'utf8');
const dashboard = JSON.parse(text('deploy/grafana/dashboard.json'));
const panels = dashboard.panels.filter(({ type }) => type !== 'row');
const alerts = [...text('deploy/prometheus/rules.yaml').matchAll(/- alert: (\w+)/g)].map(([, name]) => name);

function runs(...command) {
  const { status, stdout, stderr, error } = spawnSync(command[0], command.slice(1), { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command.join(' ')}: ${error ?? ''}${stdout}${stderr}`);
  return stdout;
}

await checks.check('every alert has its own section in docs/operations.md', () => {
  const sections = [...text('docs/operations.md').matchAll(/^### (Relay\w+)$/gm)].map(([, name]) => name);
  equal(sections.toSorted(), alerts.toSorted(), 'the sections');
  for (const name of alerts) {
    if (!text('deploy/prometheus/rules.yaml').includes(`runbook: docs/operations.md#${name.toLowerCase()}\n`)) {
      throw new Error(`${name} has no link to its section`);
    }
  }
});

await checks.check('every alert passes its cases', () => {
  runs('promtool', 'test', 'rules', at('deploy/prometheus/rules.test.yaml'));
  const cases = text('deploy/prometheus/rules.test.yaml');
  for (const name of alerts) {
    if (!cases.includes(`alertname="${name}"`)) throw new Error(`${name} fires in no case`);
  }
});

await checks.check('the configuration of Prometheus is valid', () => {
  runs('promtool', 'check', 'config', at('deploy/prometheus/prometheus.yaml'));
});

await checks.check('.env.example has every setting that compose.yaml needs', () => {
  const needed = new Set([...text('deploy/compose.yaml').matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name));
  equal(needed.size, 5, 'the number of settings');
  for (const name of needed)
    equal(new RegExp(`^${name}=$`, 'm').test(text('deploy/.env.example')), true, `${name} in .env.example`);
});

await checks.check('panels do not overlap and have unique ids', () => {
  const taken = new Set();
  for (const {
    gridPos: { x, y, w, h },
    title,
  } of dashboard.panels) {
    for (let row = y; row < y + h; row += 1) {
      for (let column = x; column < x + w; column += 1) {
        if (column >= 24 || taken.has(`${row}/${column}`)) throw new Error(`${title} overlaps another panel`);
        taken.add(`${row}/${column}`);
      }
    }
  }
  equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length, 'the ids');
});

const began = Date.now();
const deployment = await Deployment.start();
const queryOf = (expr) =>
  expr.replaceAll('$job', 'gitorial-relay').replaceAll('$instance', '.+').replaceAll('$__rate_interval', '10s');
const hasNumber = ({ value }) => Number.isFinite(Number(value[1]));

await checks.check('every metric of a rule or a panel exists on a node', async () => {
  const shown = await (await fetch(deployment.ops(deployment.nodes[0], 'metrics'))).text();
  const names = new Set([...shown.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
  const rules = text('deploy/prometheus/rules.yaml').replaceAll(/#.*|runbook:.*|job\w*:gitorial_relay_\w+:\w+/g, '');
  const asked = `${rules}\n${panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)).join('\n')}`;
  const found = [...asked.matchAll(/\b(?:gitorial_relay|process)_\w+/g)].map(([name]) => name);
  equal(found.length > 50, true, 'more than 50 metrics');
  for (const name of found) {
    if (!names.has(name.replace(/_bucket$/, ''))) throw new Error(`there is no metric ${name}`);
  }
});

await checks.check('Prometheus reads every node and the balancer', async () => {
  await until('four targets that are up', async () => {
    const { activeTargets } = await deployment.ask('targets');
    return activeTargets.length === 4 && activeTargets.every(({ health }) => health === 'up');
  });
});

const pairs = await startPairs(deployment.address, 30);
const halt = sendSteps(pairs, 200);

await checks.check('clients of a session meet on any nodes', async () => {
  const sockets = await Promise.all(deployment.nodes.map((node) => deployment.metric(node, 'gitorial_relay_connections')));
  equal(
    [sockets.every((count) => count >= 10), sockets.reduce((sum, count) => sum + count)],
    [true, 60],
    `the sockets, ${sockets}`,
  );
  await until('ten steps in every session', () => pairs.every(({ seen }) => seen >= 10));
  equal(pairs.filter(({ disordered }) => disordered > 0).length, 0, 'sessions with steps in the wrong order');
  const crossed = await deployment.metric(deployment.nodes[0], 'gitorial_relay_delivery_seconds_count');
  equal(crossed > 0, true, 'frames from other nodes');
});

// These clients feed panels: a guest joins, becomes the controller and leaves; another client sends an invalid frame.
const churn = setInterval(async () => {
  const guest = new RelayClient(deployment.address);
  guest.on('error', () => {});
  try {
    const { id } = await guest.createSessionAndConnect();
    await guest.pullStateFromPeer();
    guest.sendTutorialState(step(1));
    const rude = new WebSocket(`${deployment.address.wsUrl}?session=${id}`);
    rude.on('error', () => {});
    rude.once('open', () => rude.send('no frame'));
    rude.once('message', () => rude.terminate());
  } catch {
    // While Redis is unavailable no client can join.
  }
  setTimeout(() => guest.disconnect(), 1000);
}, 500);

await checks.check('every query of the dashboard has data', async () => {
  equal(panels.length > 25, true, 'more than 25 panels');
  for (const { title, targets } of panels) {
    for (const { expr } of targets) {
      if (ONLY_DURING_FAILURES.includes(title)) await deployment.query(queryOf(expr));
      else {
        const some = async () => (await deployment.query(queryOf(expr))).some(hasNumber);
        await until(`an answer to ${title}: ${expr}`, some);
      }
    }
  }
});

await checks.check('no alert fires without a failure', async () => {
  await until('no alert', async () => (await deployment.firing()).length === 0);
});

await checks.check('alerts fire when Redis stops, and clients keep their sockets', async () => {
  await deployment.redis.stop('SIGKILL');
  const wanted = ['RelayRedisUnreachable', 'RelayNobodyMayDrive', 'RelayNotReady'];
  await until(`${wanted.join(', ')}`, async () => {
    const firing = await deployment.firing();
    return wanted.every((name) => firing.includes(name));
  });
  await until('no node in the balancer', async () => (await deployment.serversUp()) === 0);
  equal((await fetch(deployment.ops(deployment.nodes[0], 'healthz'))).status, 200, 'the status of /healthz');
  equal(pairs.flatMap(({ lost }) => lost).length, 0, 'connections lost');
});

await checks.check('the panels for failures have data during a failure', async () => {
  for (const { targets } of panels.filter(({ title }) => ONLY_DURING_FAILURES.includes(title))) {
    for (const { expr } of targets) {
      await until(`an answer to ${expr}`, async () => (await deployment.query(queryOf(expr))).some(hasNumber));
    }
  }
});

await checks.check('states arrive and alerts end when Redis is back', async () => {
  await deployment.startRedis();
  const before = pairs.map(({ sent }) => sent);
  await until('new steps in every session', () => pairs.every(({ seen }, index) => seen > before[index] + 5));
  await until('three nodes in the balancer', async () => (await deployment.serversUp()) === 3);
  await until('no alert', async () => (await deployment.firing()).length === 0, 60_000);
  equal(pairs.flatMap(({ lost }) => lost).length, 0, 'connections lost');
});

await checks.check('the log of the balancer contains no session id', async () => {
  const ids = pairs.map(({ controller }) => controller.getCurrentSessionId());
  equal(
    ids.every((id) => typeof id === 'string' && id.length > 20),
    true,
    'known ids',
  );
  for (const pair of pairs) pair.stop();
  await until('a line about a socket', () => /GET 101 relays\/relay-/.test(deployment.balancer.output));
  equal(
    ids.filter((id) => deployment.balancer.output.includes(id)),
    [],
    'ids in the log',
  );
});

halt();
clearInterval(churn);
await deployment.stop();
console.log(`the deployment was up for ${Math.round((Date.now() - began) / 1000)} s`);
checks.end();
