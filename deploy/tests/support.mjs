/** The programs and clients of the tests, and the deployment's files adapted to one machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The time limit for every wait, ms. */
const PATIENCE = 30_000;

/** A path in the repository. */
export const at = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const read = (path) => readFileSync(at(path), 'utf8');

// The client's package has the client and a WebSocket for Node.js.
const require = createRequire(at('sdk/package.json'));
export const WebSocket = require('ws');
export const { RelayClient } = require(at('sdk/dist/index.js'));

/** Waits until `look` returns a truthy value, and returns it. An error of `look` counts as "not yet". */
export async function until(what, look, patience = PATIENCE) {
  const end = Date.now() + patience;
  let last = '';
  for (;;) {
    const found = await Promise.resolve()
      .then(look)
      .catch((error) => void (last = error.message));
    if (found) return found;
    if (Date.now() > end) throw new Error(`timed out after ${patience / 1000} s waiting for ${what} ${last}`);
    await pause(20);
  }
}

/** Runs checks in sequence, also after a failed one, and reports the results. */
export class Checks {
  passed = 0;
  failed = 0;

  async check(rule, work) {
    const began = Date.now();
    try {
      await work();
      this.passed += 1;
      console.log(`ok    ${rule} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      this.failed += 1;
      console.log(`FAIL  ${rule}\n      ${String(error.stack ?? error).replaceAll('\n', '\n      ')}`);
    }
  }

  /** Prints the totals and ends the process. */
  end() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exit(this.failed > 0 || this.passed === 0 ? 1 : 0);
  }
}

export function equal(actual, expected, what) {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: got ${left}, want ${right}`);
}

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** A running program with its output. It ends with the test. */
export class Program {
  output = '';

  constructor(command, args, env = {}) {
    this.child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    children.add(this.child);
    this.child.on('exit', () => children.delete(this.child));
    this.child.on('error', (error) => (this.output += String(error)));
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on('data', (data) => (this.output += data));
  }

  get running() {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  async stop(signal = 'SIGTERM') {
    if (!this.running) return;
    const exit = once(this.child, 'exit');
    this.child.kill(signal);
    await exit;
  }
}

const given = new Set();

/** A free port below the range of outgoing connections, because such a connection could take it before it is bound. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer();
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

const status = async (url) => (await fetch(url, { signal: AbortSignal.timeout(2000) })).status;

/** The relay's program: RELAY_BIN, or a build of cargo. */
function relayProgram() {
  const built = ['release', 'debug'].map((profile) => at(`target/${profile}/gitorial-relay`)).find(existsSync);
  const program = process.env.RELAY_BIN ?? built;
  if (program === undefined) throw new Error('no relay program found: run `cargo build` or set RELAY_BIN');
  return program;
}

/** The lines of a list in compose.yaml that follow `service:` … `key:`. */
function listInCompose(service, key) {
  const block = read('deploy/compose.yaml')
    .split(`\n  ${service}:\n`)[1]
    .split(/\n {2}\w/)[0];
  const list = block.split(`\n    ${key}:\n`)[1].split(/\n {4}\w/)[0];
  return [...list.matchAll(/^ {6}- "?([^"\n]*)"?$/gm)].map(([, item]) => item);
}

/** Three nodes over a Redis behind a load balancer, all as processes of this machine. */
export class Deployment {
  folder = mkdtempSync(join(tmpdir(), 'gitorial-deploy-'));
  password = 'only-for-this-test';
  programs = [];

  static async start({ prometheus = true } = {}) {
    const deployment = new Deployment();
    try {
      await deployment.#start(prometheus);
      return deployment;
    } catch (error) {
      await deployment.stop();
      throw error;
    }
  }

  async #start(prometheus) {
    this.ports = {
      redis: await freePort(),
      clients: await freePort(),
      balancer: await freePort(),
      prometheus: await freePort(),
    };
    this.nodes = [];
    for (const name of ['relay-1', 'relay-2', 'relay-3']) {
      this.nodes.push({ name, port: await freePort(), ops: await freePort() });
    }
    await this.startRedis();
    await Promise.all(this.nodes.map((node) => this.startNode(node)));
    await this.#startBalancer();
    if (prometheus) await this.#startPrometheus();
  }

  run(...args) {
    const program = new Program(...args);
    this.programs.push(program);
    return program;
  }

  async #answers(name, program, look) {
    const answers = await until(name, async () => !program.running || (await look())).catch(() => false);
    if (!answers || !program.running) throw new Error(`${name} does not answer. It says:\n${program.output}`);
  }

  /** Starts Redis with the command of compose.yaml, with its own port and folder. */
  async startRedis() {
    const command = listInCompose('redis', 'command').map((word) =>
      word.replace(/\$\{REDIS_(ADMIN_)?PASSWORD:[^}]*\}$/, this.password),
    );
    const { redis } = this.ports;
    const own = ['--port', String(redis), '--bind', '127.0.0.1', '--dir', this.folder];
    this.redis = this.run(command[0], [...command.slice(1), ...own]);
    await this.#answers('redis', this.redis, () => this.redis.output.includes('Ready to accept connections'));
  }

  /** Starts a node with the settings of compose.yaml and of the image. */
  async startNode(node) {
    node.program = this.run(relayProgram(), ['serve'], {
      RELAY_LISTEN: `127.0.0.1:${node.port}`,
      RELAY_OPS_LISTEN: `127.0.0.1:${node.ops}`,
      RELAY_LOG_FORMAT: 'json',
      RELAY_REDIS_URL: `redis://relay:${this.password}@127.0.0.1:${this.ports.redis}`,
      RELAY_ALLOWED_ORIGINS: '*',
      RELAY_DRAIN_TIMEOUT: '25s',
      RELAY_NODE_ID: node.name,
    });
    await this.#answers(node.name, node.program, async () => (await status(this.ops(node, 'readyz'))) === 200);
  }

  ops(node, path) {
    return `http://127.0.0.1:${node.ops}/${path}`;
  }

  /** Starts the balancer with the unchanged haproxy.cfg, whose addresses come from the environment. */
  async #startBalancer() {
    const env = {
      // A client needs two open files, and a test machine has a low limit.
      BALANCER_MAXCONN: '4000',
      BALANCER_LISTEN: `127.0.0.1:${this.ports.clients}`,
      BALANCER_OPS_LISTEN: `127.0.0.1:${this.ports.balancer}`,
    };
    for (const [index, { port, ops }] of this.nodes.entries()) {
      env[`RELAY_${index + 1}`] = `127.0.0.1:${port}`;
      env[`RELAY_${index + 1}_OPS`] = String(ops);
    }
    this.socket = join(this.folder, 'balancer.sock');
    // The second file only adds a socket for commands.
    const extra = join(this.folder, 'commands.cfg');
    writeFileSync(extra, `global\n    stats socket ${this.socket} level admin\n`);
    this.balancer = this.run('haproxy', ['-db', '-f', at('deploy/haproxy.cfg'), '-f', extra], env);
    await this.#answers('the balancer', this.balancer, async () => (await this.serversUp()) === 3);
  }

  /** The number of nodes to which the balancer sends clients. */
  async serversUp() {
    const text = await (await fetch(`http://127.0.0.1:${this.ports.balancer}/metrics`)).text();
    return [...text.matchAll(/^haproxy_server_status\{proxy="relays",server="[^"]+",state="UP"\} 1$/gm)].length;
  }

  /**
   * Starts Prometheus with prometheus.yaml and rules.yaml, with other addresses and shorter times: scrapes every second,
   * all ranges 10 s, all `for` times 2 s. Otherwise a test would last an hour.
   */
  async #startPrometheus() {
    let config = read('deploy/prometheus/prometheus.yaml').replaceAll(/(_interval|_timeout): \d+s/g, '$1: 1s');
    for (const { name, ops } of this.nodes) config = config.replace(`${name}:9090`, `127.0.0.1:${ops}`);
    config = config.replace('balancer:8404', `127.0.0.1:${this.ports.balancer}`);
    const rules = read('deploy/prometheus/rules.yaml')
      .replaceAll(/\[\d+m\]/g, '[10s]')
      .replaceAll(/for: \d+[ms]/g, 'for: 2s');
    writeFileSync(join(this.folder, 'prometheus.yaml'), config);
    writeFileSync(join(this.folder, 'rules.yaml'), rules);
    this.prometheus = this.run('prometheus', [
      `--config.file=${join(this.folder, 'prometheus.yaml')}`,
      `--storage.tsdb.path=${join(this.folder, 'measurements')}`,
      `--web.listen-address=127.0.0.1:${this.ports.prometheus}`,
    ]);
    const ready = `http://127.0.0.1:${this.ports.prometheus}/-/ready`;
    await this.#answers('prometheus', this.prometheus, async () => (await status(ready)) === 200);
  }

  /** The answer of Prometheus at this path of its API. */
  async ask(path, query = {}) {
    const url = `http://127.0.0.1:${this.ports.prometheus}/api/v1/${path}?${new URLSearchParams(query)}`;
    const { status: outcome, data, error } = await (await fetch(url)).json();
    if (outcome !== 'success') throw new Error(`${error}, for ${JSON.stringify(query)}`);
    return data;
  }

  async query(query) {
    return (await this.ask('query', { query })).result;
  }

  /** The names of the alerts that fire now. */
  async firing() {
    const { alerts } = await this.ask('alerts');
    return [...new Set(alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname))];
  }

  /** The sum of a node's metric over all its labels. */
  async metric(node, name) {
    const text = await (await fetch(this.ops(node, 'metrics'))).text();
    const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].map(([, value]) => Number(value));
    if (values.length === 0) throw new Error(`${node.name} has no ${name}`);
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** The addresses of the relay for clients. */
  get address() {
    const host = `127.0.0.1:${this.ports.clients}`;
    return { baseUrl: `http://${host}`, wsUrl: `ws://${host}/ws`, sessionEndpoint: '/api/sessions' };
  }

  async stop() {
    await Promise.all(this.programs.map((program) => program.stop('SIGKILL')));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A state at this step. */
export function step(index) {
  const stepContent = { id: `step-${index}`, title: `Step ${index}`, commitHash: 'abc123', type: 'action', index };
  return { tutorialId: 'tour', tutorialTitle: 'A tour', totalSteps: 1_000_000, isShowingSolution: false, stepContent };
}

/** One session with a controller and a follower. */
export class Pair {
  sent = 0;
  seen = 0;
  /** The follower's number of steps, of steps after a later one, and its longest time between two steps, ms. */
  steps = 0;
  disordered = 0;
  longestSilence = 0;
  /** The times of lost connections, and the number of reconnects without a resume. */
  lost = [];
  notResumed = 0;
  /** The number of the controller's phase changes to `passive` or `connected_idle`. */
  rolesLost = 0;
  ended = 0;

  static async start(address) {
    const pair = new Pair();
    [pair.controller, pair.follower] = [0, 1].map(() => new RelayClient({ ...address, reconnectDelay: 200 }));
    for (const client of [pair.controller, pair.follower]) {
      client.on('error', () => {});
      client.on('disconnected', ({ willReconnect }) => {
        pair.lost.push(Date.now());
        if (!willReconnect) pair.ended += 1;
      });
      client.on('connected', ({ reconnected, resumed }) => {
        if (reconnected && !resumed) pair.notResumed += 1;
      });
    }
    const session = await pair.controller.createSessionAndConnect({ tutorial: 'tour' });
    await pair.controller.pullStateFromPeer();
    await pair.follower.connectToSession(session.id);
    await pair.follower.pushStateToPeer();
    let last = 0;
    pair.follower.on('tutorialStateUpdated', ({ stepContent: { index } }) => {
      const now = performance.now();
      if (last > 0) pair.longestSilence = Math.max(pair.longestSilence, now - last);
      last = now;
      pair.steps += 1;
      if (index < pair.seen) pair.disordered += 1;
      pair.seen = Math.max(pair.seen, index);
    });
    pair.controller.on('syncPhaseChanged', ({ newPhase }) => {
      if (newPhase === 'passive' || newPhase === 'connected_idle') pair.rolesLost += 1;
    });
    return pair;
  }

  /** The controller sends the next step. */
  go() {
    this.controller.sendTutorialState(step(this.sent + 1));
    this.sent += 1;
  }

  stop() {
    this.controller.disconnect();
    this.follower.disconnect();
  }
}

/** Starts this many pairs, a few at a time. */
export async function startPairs(address, count) {
  const pairs = [];
  for (let left = count; left > 0; left -= 20) {
    pairs.push(...(await Promise.all(Array.from({ length: Math.min(left, 20) }, () => Pair.start(address)))));
  }
  return pairs;
}

/** Sends a step of every pair each `interval` ms, spread evenly, until the returned function is called. */
export function sendSteps(pairs, interval) {
  let next = 0;
  let owed = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    owed += ((now - last) / interval) * pairs.length;
    last = now;
    for (; owed >= 1; owed -= 1) {
      const pair = pairs[next % pairs.length];
      next += 1;
      try {
        pair.go();
      } catch {
        // The controller has no role now; its phase change is counted.
      }
    }
  }, 10);
  return () => clearInterval(timer);
}
