/** A load balancer that a test commands: it brings each new connection to the first of its nodes that accepts it. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { addressOf, type Address, type RelayNode } from './cluster';
import { listen, portOf } from './process';

/** One client's connection, and the node's end of it. */
interface Pipe {
  client: Socket;
  node: Socket;
  port: number;
}

export class Balancer {
  private readonly _pipes = new Set<Pipe>();
  private _ports: number[] = [];
  private _offline = false;
  /** Those that have tried to connect without a network. */
  private readonly _waiting = new Set<Socket>();

  private constructor(private readonly _server: Server) {
    _server.on('connection', (client) => this._accept(client));
  }

  static async start(): Promise<Balancer> {
    const server = createServer();
    await listen(server);
    return new Balancer(server);
  }

  get address(): Address {
    return addressOf(portOf(this._server));
  }

  /** From now on new connections go to the first of these that accepts them. */
  use(...nodes: RelayNode[]): this {
    this._ports = nodes.map(({ port }) => port);
    return this;
  }

  /** The port of the node that a client is on now, when there is but one client. */
  get at(): number | undefined {
    return [...this._pipes].at(-1)?.port;
  }

  /** Breaks every connection. */
  cut(): void {
    for (const { client, node } of this._pipes) {
      client.resetAndDestroy();
      node.resetAndDestroy();
    }
  }

  /** Nothing passes any more, and nobody is told: what a client behind a dead network sees. */
  freeze(): void {
    this._offline = true;
    for (const { client, node } of this._pipes) {
      client.unpipe(node).pause();
      node.unpipe(client).pause();
    }
  }

  /** The network is back. What was on its way is lost. */
  thaw(): void {
    this._offline = false;
    this.cut();
    for (const client of this._waiting) client.resetAndDestroy();
    this._waiting.clear();
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this._server.close(resolve));
    this.thaw();
    await closed;
  }

  private _accept(client: Socket): void {
    client.on('error', () => {});
    // Without a network there is no answer, and no refusal either.
    if (this._offline) return void this._waiting.add(client.pause());
    this._connect(client, [...this._ports]);
  }

  private _connect(client: Socket, ports: number[]): void {
    const port = ports.shift();
    if (port === undefined) return void client.resetAndDestroy();
    const node = connect(port, '127.0.0.1');
    node.once('error', () => this._connect(client, ports));
    node.once('connect', () => {
      const pipe = { client, node, port };
      this._pipes.add(pipe);
      const end = (): void => {
        this._pipes.delete(pipe);
        client.destroy();
        node.destroy();
      };
      node.removeAllListeners('error').on('error', end).on('close', end);
      client.on('close', end);
      client.pipe(node).pipe(client);
    });
  }
}
