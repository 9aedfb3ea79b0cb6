/** Real nodes of the relay over a real Redis, behind a load balancer that a test controls. */
import { mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RelayClientConfig } from '@gitorial/sync';
import { Balancer } from './balancer';
import { freePort, Program } from './process';

/** The addresses of a relay, as a client needs them. */
export type Address = Pick<RelayClientConfig, 'baseUrl' | 'wsUrl' | 'sessionEndpoint'>;

export function addressOf(port: number): Address {
  return { baseUrl: `http://127.0.0.1:${port}`, wsUrl: `ws://127.0.0.1:${port}/ws`, sessionEndpoint: '/api/sessions' };
}

/** The relay's program: RELAY_BIN, or a build of cargo. */
export function relayProgram(): string {
  const target = fileURLToPath(new URL('../../../target/', import.meta.url));
  const built = ['debug', 'release'].map((profile) => join(target, profile, 'gitorial-relay')).find(existsSync);
  const program = process.env['RELAY_BIN'] ?? built;
  if (program === undefined) throw new Error('no relay program found: run `cargo build` or set RELAY_BIN');
  return program;
}

/** One process of the relay. */
export class RelayNode {
  private constructor(
    private readonly _program: Program,
    readonly port: number,
  ) {}

  static async start(...args: string[]): Promise<RelayNode> {
    const program = new Program(relayProgram(), ['serve', '--listen', '127.0.0.1:0', ...args]);
    const [, port] = await program.hasSaid(/127\.0\.0\.1:(\d+)/);
    await program.hasSaid(/serving/);
    return new RelayNode(program, Number(port));
  }

  get address(): Address {
    return addressOf(this.port);
  }

  /** Kills the process, which closes no connection properly. */
  kill(): Promise<void> {
    return this._program.stop('SIGKILL');
  }

  /** Drains the node: it closes its connections with 1012 and exits. */
  drain(): Promise<void> {
    return this._program.stop('SIGTERM');
  }
}

/** Nodes over their own Redis, with a balancer. */
export class Cluster {
  private constructor(
    private readonly _folder: string,
    private readonly _redis: Program,
    private readonly _url: string,
    readonly nodes: RelayNode[],
    readonly balancer: Balancer,
  ) {}

  static async start(size = 2): Promise<Cluster> {
    const folder = await mkdtemp(join(tmpdir(), 'gitorial-sync-'));
    const port = await freePort();
    const redis = new Program('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', folder]);
    await redis.hasSaid(/Ready to accept connections/);
    const url = `redis://127.0.0.1:${port}`;
    const cluster = new Cluster(folder, redis, url, [], await Balancer.start());
    for (let started = 0; started < size; started += 1) await cluster.add();
    return cluster;
  }

  /** Starts another node. */
  async add(): Promise<RelayNode> {
    const node = await RelayNode.start('--redis-url', this._url);
    this.nodes.push(node);
    return node;
  }

  get near(): RelayNode {
    return this.nodes[0]!;
  }

  get far(): RelayNode {
    return this.nodes[1]!;
  }

  async stop(): Promise<void> {
    await this.balancer.stop();
    await Promise.all(this.nodes.map((node) => node.kill()));
    await this._redis.stop('SIGKILL');
    await rm(this._folder, { recursive: true, force: true });
  }
}
