// Tests the image in containers. IMAGE names an existing image. By default the tests build only the last stage of the
// Dockerfile, with the static program that RELAY_BIN names; this needs no registry.
import { readFileSync } from 'node:fs';
import { docker, relayImage, run } from './containers.mjs';
import { at, Checks, equal, Pair, until } from './support.mjs';

const checks = new Checks();
const VERSION = readFileSync(at('Cargo.toml'), 'utf8').match(/^version = "(.+)"$/m)[1];
const HARDENED = ['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges'];
const QUICK = ['--health-interval', '1s'];

const image = relayImage();
const started = [];
/** Starts a container, which is removed after the tests. */
function start(...args) {
  const id = docker('run', '--detach', ...args);
  started.push(id);
  return id;
}
const portOf = (id, port) => docker('port', id, String(port)).split('\n')[0].split(':').at(-1);
const state = (id) => JSON.parse(docker('inspect', id, '--format', '{{json .State}}'));

await checks.check('the image has its labels and an unprivileged user', () => {
  const { Config } = JSON.parse(docker('inspect', image))[0];
  const label = (name) => Config.Labels[`org.opencontainers.image.${name}`];
  equal([label('title'), label('version'), label('licenses')], ['gitorial-relay', VERSION, 'MIT'], 'the labels');
  equal(typeof label('revision'), 'string', 'the revision');
  equal(Config.User, '65532:65532', 'the user');
  equal(Object.keys(Config.ExposedPorts).toSorted(), ['8080/tcp', '9090/tcp'], 'the ports');
});

await checks.check('it has only the program, its licence and the authorities', () => {
  const id = docker('create', image);
  const tar = run('sh', ['-c', `docker export ${id} | tar -t`]).stdout;
  docker('rm', id);
  // The files that Docker adds to every container.
  const own = /\/$|^(\.dockerenv|dev\/console|etc\/(hostname|hosts|mtab|resolv\.conf))$/;
  const files = tar
    .trim()
    .split('\n')
    .filter((name) => !own.test(name));
  equal(files.toSorted(), ['LICENSE', 'etc/ssl/certs/ca-certificates.crt', 'gitorial-relay'], 'the files');
});

await checks.check('an invalid setting leads to exit code 2', () => {
  const { status: code, stderr: said } = run('docker', ['run', '--rm', image, 'serve', '--listen', 'nowhere']);
  equal(code, 2, said);
});

const relay = start(...HARDENED, ...QUICK, '-p', '127.0.0.1::8080', '-p', '127.0.0.1::9090', image);

await checks.check('it is healthy read-only and without capabilities', async () => {
  await until('a healthy container', () => {
    const { Health } = state(relay);
    if (Health.Status !== 'healthy') throw new Error(JSON.stringify(Health));
    return true;
  });
});

await checks.check('its process runs as user 65532', () => {
  const [, process] = docker('top', relay, '-o', 'pid,uid,comm').split('\n');
  equal(process.trim().split(/\s+/).slice(1), ['65532', 'gitorial-relay'], 'the process');
});

await checks.check('it serves sessions, and metrics only on the ops port', async () => {
  const host = `127.0.0.1:${portOf(relay, 8080)}`;
  const pair = await Pair.start({
    baseUrl: `http://${host}`,
    wsUrl: `ws://${host}/ws`,
    sessionEndpoint: '/api/sessions',
  });
  pair.go();
  await until('the step', () => pair.seen === 1);
  pair.stop();
  equal((await fetch(`http://127.0.0.1:${portOf(relay, 9090)}/metrics`)).status, 200, 'the ops port');
  equal((await fetch(`http://${host}/metrics`)).status, 404, 'the port for clients');
});

await checks.check('it finds Redis by /etc/hosts and by DNS', async () => {
  const redis = run(at('tests/support/redis-image.sh'), []).stdout.trim();
  const network = `relay-test-${process.pid}`;
  docker('network', 'create', network);
  try {
    const store = start('--network', network, '--name', `store-${process.pid}`, redis);
    const address = docker('inspect', store, '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}');
    for (const [name, ...how] of [['pinned.test', '--add-host', `pinned.test:${address}`], [`store-${process.pid}`]]) {
      const url = `RELAY_REDIS_URL=redis://${name}:6379`;
      const node = start(...HARDENED, '--network', network, '-p', '127.0.0.1::9090', '-e', url, ...how, image);
      const ready = async () => (await fetch(`http://127.0.0.1:${portOf(node, 9090)}/readyz`)).status === 200;
      await until(`a node that reaches ${name}`, ready);
      docker('rm', '--force', node);
    }
    docker('rm', '--force', store);
  } finally {
    run('docker', ['network', 'rm', network]);
  }
});

await checks.check('it exits cleanly on SIGTERM', () => {
  docker('stop', relay);
  equal(state(relay).ExitCode, 0, 'the exit code');
});

for (const id of started) run('docker', ['rm', '--force', id]);
const { Size } = JSON.parse(docker('inspect', image))[0];
console.log(`the image has ${(Size / 1e6).toFixed(1)} MB`);
checks.end();
