/** A relay that a test controls, over sockets in memory. */
import { expect, vi } from 'vitest';
import type { RelayClientConfig } from '../../src/api';
import { RelayClient } from '../../src/browser';
import type { RelayClientEvents } from '../../src/events';
import type { Socket } from '../../src/link';
import type { TutorialSyncState } from '../../src/protocol';

/** A frame as it was sent. */
export interface Sent {
  type: string;
  clientId?: string;
  data?: Record<string, unknown>;
  epoch?: number;
}

/** The client's end of a connection, and the relay's. */
export class FakeSocket implements Socket {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly sent: Sent[] = [];
  /** The close code that the client used. */
  closedBy: number | undefined;

  constructor(readonly url: URL) {}

  send(data: string): void {
    this.sent.push(JSON.parse(data) as Sent);
  }

  close(code?: number): void {
    this.closedBy = code ?? 1005;
  }

  /** Lets the socket open. */
  open(): this {
    this.onopen?.({} as never);
    return this;
  }

  /** Delivers a frame to the client. */
  deliver(type: string, data?: object, rest: object = {}): this {
    return this.deliverText(JSON.stringify({ type, clientId: 'relay-server', data, ...rest }));
  }

  /** Delivers any data to the client. */
  deliverText(data: unknown): this {
    this.onmessage?.({ data } as never);
    return this;
  }

  /** Answers the handshake. */
  ack(rest: object = {}): this {
    const capabilities = ['resume', 'epoch', 'seq', 'ping'];
    const clientId = this.url.searchParams.get('client');
    const text = { type: 'protocol_ack', accepted: true, clientId, epoch: 1, role: 'connected', resumed: false, capabilities };
    return this.deliverText(JSON.stringify({ ...text, resume: 'token-1', ...rest }));
  }

  /** Assigns a role to the client. */
  assign(direction: 'ACTIVE' | 'PASSIVE', epoch?: number): this {
    return this.deliver('assign_sync_direction', { assignedDirection: direction, reason: 'a test' }, { epoch });
  }

  /** Refuses a frame. */
  reject(type: string, code: string): this {
    return this.deliver('rejected', { type, code, message: 'No.' });
  }

  /** Closes or breaks the connection. */
  drop(code = 1006, reason = ''): this {
    this.onclose?.({ code, reason } as never);
    return this;
  }

  /** The sent frames of this type. */
  all(type: string): Sent[] {
    return this.sent.filter((frame) => frame.type === type);
  }

  /** The last sent frame, which must be of this type. */
  last(type: string): Sent {
    const frame = this.sent.at(-1);
    expect(frame?.type).toBe(type);
    return frame!;
  }
}

/** The relay with the sockets of its clients. */
export class FakeRelay {
  readonly sockets: FakeSocket[] = [];

  /** The newest connection. */
  get socket(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  client(config: Partial<RelayClientConfig> = {}): RelayClient {
    const relay = this;
    class Connected extends FakeSocket {
      constructor(url: string) {
        super(new URL(url));
        relay.sockets.push(this);
      }
    }
    return new RelayClient({
      baseUrl: 'http://relay.test',
      wsUrl: 'ws://relay.test',
      sessionEndpoint: '/api/sessions',
      WebSocket: Connected,
      ...config,
    });
  }

  /** A client that is in a session, without a role. */
  async connected(config?: Partial<RelayClientConfig>): Promise<RelayClient> {
    const client = this.client(config);
    const connecting = client.connectToSession('session-1');
    this.socket.open().ack();
    await connecting;
    await tasks();
    return client;
  }

  /** A client that is the controller. */
  async active(config?: Partial<RelayClientConfig>): Promise<RelayClient> {
    const client = await this.connected(config);
    const pulling = client.pullStateFromPeer();
    this.socket.assign('ACTIVE', 2);
    await pulling;
    await tasks();
    this.socket.sent.length = 0;
    return client;
  }

  /** A client that is a follower and has sent its initial state. */
  async passive(config?: Partial<RelayClientConfig>): Promise<RelayClient> {
    const client = await this.connected(config);
    const pushing = client.pushStateToPeer();
    this.socket.assign('PASSIVE', 2);
    await pushing;
    client.sendTutorialState(step(0));
    await tasks();
    this.socket.sent.length = 0;
    return client;
  }

  /** Waits for the next connection of a client that reconnects. */
  async reconnection(): Promise<FakeSocket> {
    const before = this.sockets.length;
    for (let waited = 0; this.sockets.length === before && waited < 120_000; waited += 50) await vi.advanceTimersByTimeAsync(50);
    expect(this.sockets.length).toBe(before + 1);
    return this.socket;
  }
}

/** Runs everything that is due now: each event has its own task, which takes a millisecond of fake time. */
export async function tasks(): Promise<void> {
  for (let task = 0; task < 24; task += 1) await vi.advanceTimersByTimeAsync(1);
}

/** A state at this step. */
export function step(index: number): TutorialSyncState {
  const stepContent = { id: `step-${index}`, title: 'A step', commitHash: 'abc', type: 'action' as const, index };
  return { tutorialId: 't', tutorialTitle: 'A tutorial', totalSteps: 9, isShowingSolution: false, stepContent };
}

/** Records every event of one kind. */
export function record<E extends keyof RelayClientEvents>(client: RelayClient, event: E): RelayClientEvents[E][0][] {
  const seen: RelayClientEvents[E][0][] = [];
  client.on(event, (...args) => void seen.push(args[0]));
  return seen;
}

/** The error that a call threw or rejected with. */
export async function failure(call: () => unknown): Promise<{ type?: string; code?: string; message?: string }> {
  try {
    await call();
  } catch (error) {
    return error as { type?: string };
  }
  return { type: 'nothing was thrown' };
}
