/** A load balancer that a test controls: each new connection goes to the first node that accepts it. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { addressOf, type Address, type RelayNode } from './cluster';
import { listen, portOf } from './process';

/** The client's end and the node's end of one connection. */
interface Pipe {
  client: Socket;
  node: Socket;
  port: number;
}

export class Balancer {
  private readonly _pipes = new Set<Pipe>();
  private _ports: number[] = [];
  private _offline = false;
  /** The sockets that tried to connect while the network was lost. */
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

  /** Sends new connections to the first of these nodes that accepts them. */
  use(...nodes: RelayNode[]): this {
    this._ports = nodes.map(({ port }) => port);
    return this;
  }

  /** The port of the node that the only client is on now. */
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

  /** Stops all traffic without closing a socket, as a dead network does. */
  freeze(): void {
    this._offline = true;
    for (const { client, node } of this._pipes) {
      client.unpipe(node).pause();
      node.unpipe(client).pause();
    }
  }

  /** Restores the network. Frames in transit are lost. */
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
    // A lost network gives no answer and no refusal.
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
