/** One socket to the relay: its handshake, its heartbeat, its end. */
import type { Closed } from './codes';
import { type Ack, type Frame, parse, PROTOCOL_VERSION } from './protocol';

/** As much of a WebSocket as is used here; the browser's and the one of `ws` are both it. */
export interface Socket {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** Makes a socket. */
export type SocketConstructor = new (url: string) => Socket;

/** How long a relay may take to answer the handshake before it counts as one that knows none, ms. */
export const HANDSHAKE_MS = 2_000;

/** After so long without a frame the relay is asked whether it is still there, ms. */
export const SILENCE_MS = 20_000;

/** How long it may take to answer that, ms. */
export const PONG_MS = 10_000;

/** How long it may take when there is reason to believe that the link is dead, ms. */
export const URGENT_PONG_MS = 3_000;

/** What a browser's socket is closed with when it is given up for dead. */
const LOST_CODE = 4000;

/** What a link tells its owner. After {@link LinkEvents.closed} it says nothing more. */
export interface LinkEvents {
  /** The relay has let it in. No `ack`: it is a relay that does not know the handshake. */
  ready(ack: Ack | undefined): void;
  frame(frame: Frame): void;
  closed(closed: Closed): void;
}

/** One socket to the relay. */
export class Link {
  private readonly _socket: Socket;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _ready = false;
  private _answersPings = false;
  private _over = false;

  constructor(
    url: string,
    WebSocket: SocketConstructor,
    timeout: number,
    private readonly _events: LinkEvents,
  ) {
    this._socket = new WebSocket(url);
    this._socket.onopen = () => this._opened();
    this._socket.onmessage = ({ data }: { data: unknown }) => this._heard(data);
    this._socket.onclose = ({ code, reason }: Closed) => this._end({ code, reason: String(reason) });
    // A close follows every error. Without a listener `ws` would throw it.
    this._socket.onerror = () => {};
    this._wait(timeout, () => this.drop('no answer in time'));
  }

  /** Whether the relay answers when asked whether it is there. */
  get canProbe(): boolean {
    return this._answersPings;
  }

  /** Sends a frame. Only after `ready`. */
  send(frame: object): void {
    this._socket.send(JSON.stringify(frame));
  }

  /** Asks the relay whether it is there, and takes silence within `patience` ms for a no. */
  probe(patience: number): void {
    if (!this._answersPings || this._over) return;
    this.send(this._envelope('protocol_ping'));
    this._wait(patience, () => this.drop('the relay does not answer'));
  }

  /** Says goodbye. The owner hears no more of this link. */
  leave(): void {
    this._detach();
    this._socket.close(1000);
  }

  /** Gives the link up for dead. */
  drop(reason: string): void {
    // Of a dead link no close can be awaited; `ws` can let go at once.
    const socket = this._socket as Socket & { terminate?: () => void };
    if (socket.terminate) socket.terminate();
    // A code of our own: without one the relay would take it for a leave, should it still hear it.
    else socket.close(LOST_CODE);
    this._end({ code: 1006, reason });
  }

  private _opened(): void {
    this.send(this._envelope('protocol_handshake'));
    // Relays that know no handshake say nothing. Should this one just be slow, its answer still counts when it comes.
    this._wait(HANDSHAKE_MS, () => this._becomeReady(undefined));
  }

  private _heard(data: unknown): void {
    if (this._answersPings) this._listen();
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === 'protocol_ack') this._acknowledged(frame as Ack);
    else if (frame.type !== 'protocol_pong') this._events.frame(frame);
  }

  private _acknowledged(ack: Ack): void {
    // The relay closes, and says why.
    if (!ack.accepted) return;
    this._answersPings = ack.capabilities?.includes('ping') ?? false;
    this._becomeReady(ack);
  }

  private _becomeReady(ack: Ack | undefined): void {
    if (this._ready && !ack) return;
    this._ready = true;
    clearTimeout(this._timer);
    if (this._answersPings) this._listen();
    this._events.ready(ack);
  }

  private _listen(): void {
    this._wait(SILENCE_MS, () => this.probe(PONG_MS));
  }

  /** There is one thing at a time that a link waits for. */
  private _wait(ms: number, then: () => void): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(then, ms);
  }

  private _envelope(type: string): object {
    return { type, protocol_version: PROTOCOL_VERSION, timestamp: Date.now() };
  }

  private _end(closed: Closed): void {
    if (this._over) return;
    this._detach();
    this._events.closed(closed);
  }

  private _detach(): void {
    this._over = true;
    clearTimeout(this._timer);
    this._socket.onopen = this._socket.onmessage = this._socket.onclose = null;
  }
}
