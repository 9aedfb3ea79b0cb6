// Tests compose.yaml in containers. The relay's image is the one of image.mjs. The images of Redis, HAProxy and
// Prometheus are built from this machine's programs, without a registry. Grafana is not tested, because Debian has no
// package for it.
import { docker, relayImage, run } from './containers.mjs';
import { at, Checks, equal, Pair, until } from './support.mjs';

const SERVICES = ['redis', 'relay-1', 'relay-2', 'relay-3', 'balancer', 'prometheus'];
const FILE = at('deploy/compose.yaml');
const PROJECT = `relay-test-${process.pid}`;
const checks = new Checks();

function standIn(name, change, ...programs) {
  const image = `relay-test-${name}:local`;
  const { status, stderr } = run(at('tests/support/program-image.sh'), [image, change, ...programs]);
  if (status !== 0) throw new Error(stderr);
  return image;
}

const environment = {
  REDIS_PASSWORD: 'onlyforthistest',
  REDIS_ADMIN_PASSWORD: 'anotherforthistest',
  RELAY_CLUSTER_SECRET: 'onlyforthistestofcompose',
  GRAFANA_PASSWORD: 'onlyforthistest',
  RELAY_ALLOWED_ORIGINS: '*',
  RELAY_IMAGE: relayImage(),
  REDIS_IMAGE: standIn('redis', 'CMD ["redis-server"]', 'redis-server', 'redis-cli'),
  BALANCER_IMAGE: standIn('haproxy', 'USER 65534:65534', 'haproxy', 'busybox'),
  PROMETHEUS_IMAGE: standIn('prometheus', 'USER 65534:65534\nENTRYPOINT ["/usr/bin/prometheus"]', 'prometheus', 'busybox'),
  RELAY_PORT: '127.0.0.1:0',
  PROMETHEUS_PORT: '0',
  // A test machine has a low limit of open files.
  OPEN_FILES: '20000',
  BALANCER_MAXCONN: '4000',
};

const program = run('docker', ['compose', 'version']).status === 0 ? ['docker', 'compose'] : ['docker-compose'];
/** Runs compose with these settings. */
const composeWith = (settings, ...args) =>
  run(program[0], [...program.slice(1), '-f', FILE, '-p', PROJECT, ...args], { env: { ...process.env, ...settings } });

function compose(...args) {
  const { status, stdout, stderr } = composeWith(environment, ...args);
  if (status !== 0) throw new Error(`compose ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout.trim();
}

const container = (service) => compose('ps', '-q', service);
const inspect = (service) => JSON.parse(docker('inspect', container(service)))[0];
const published = (service, port) =>
  `http://${docker('port', container(service), String(port)).split('\n')[0].replace('0.0.0.0', '127.0.0.1')}`;

async function healthy(...services) {
  for (const service of services) {
    await until(`a healthy ${service}`, () => inspect(service).State.Health.Status === 'healthy', 60_000);
  }
}

async function ask(query) {
  const response = await fetch(`${published('prometheus', 9090)}/api/v1/query?${new URLSearchParams({ query })}`);
  return Number((await response.json()).data.result[0]?.value[1]);
}

async function sendsStep(pair) {
  pair.go();
  const wanted = pair.sent;
  await until(`step ${wanted}`, () => pair.seen === wanted);
}

await checks.check('a missing setting is an error that names .env.example', () => {
  for (const name of [
    'REDIS_PASSWORD',
    'REDIS_ADMIN_PASSWORD',
    'RELAY_CLUSTER_SECRET',
    'GRAFANA_PASSWORD',
    'RELAY_ALLOWED_ORIGINS',
  ]) {
    const { status, stderr } = composeWith({ ...environment, [name]: '' }, 'config');
    equal([status === 0, stderr.includes('.env.example')], [false, true], `${name}: ${stderr}`);
  }
});

await checks.check('all services start and are healthy', async () => {
  compose('up', '--detach', '--no-build', ...SERVICES);
  await healthy(...SERVICES);
});

await checks.check('no service has root, a capability or a writable root file system', () => {
  for (const service of SERVICES) {
    const { HostConfig, Id } = inspect(service);
    const held = [HostConfig.ReadonlyRootfs, HostConfig.CapDrop, HostConfig.SecurityOpt];
    equal(held, [true, ['ALL'], ['no-new-privileges:true']], service);
    const users = docker('top', Id, '-o', 'pid,uid')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/)[1]);
    equal(
      users.filter((user) => user === '0'),
      [],
      service,
    );
  }
});

const url = published('balancer', 8080);
const pair = await Pair.start({
  baseUrl: url,
  wsUrl: `${url.replace('http', 'ws')}/ws`,
  sessionEndpoint: '/api/sessions',
});
const session = `${url}/api/sessions/${pair.controller.getCurrentSessionId()}`;

await checks.check('a session is served through the balancer', () => sendsStep(pair));

await checks.check('Prometheus reads the nodes and the balancer', async () => {
  await until('four targets that are up', async () => (await ask('sum(up)')) === 4);
});

await checks.check('the balancer finds a recreated node with another address', async () => {
  const before = container('relay-2');
  compose('up', '--detach', '--no-build', '--no-deps', '--force-recreate', 'relay-2');
  await healthy('relay-2');
  equal(container('relay-2') === before, false, 'the same container');
  await sendsStep(pair);
  await until('three nodes in the balancer', async () => {
    return (await ask('sum(haproxy_server_status{proxy="relays", state="UP"})')) === 3;
  });
});

await checks.check('sessions survive a restart of Redis', async () => {
  compose('restart', 'redis');
  await healthy('redis');
  await until('the session', async () => (await fetch(session)).status === 200);
  await until('a new step in the session', () => sendsStep(pair).then(() => true));
});

await checks.check('a stopped node exits cleanly within its time', async () => {
  compose('stop', 'relay-1');
  equal(inspect('relay-1').State.ExitCode, 0, 'the exit code');
  await sendsStep(pair);
});

pair.stop();
compose('down', '--volumes');
checks.end();
