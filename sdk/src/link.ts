/** One socket to the relay: its handshake, its heartbeat and its end. */
import type { Closed } from './codes';
import { type Ack, type Frame, parse, PROTOCOL_VERSION } from './protocol';

/** The part of the WebSocket interface that the client uses. The browser's WebSocket and `ws` both implement it. */
export interface Socket {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** The constructor of a socket. */
export type SocketConstructor = new (url: string) => Socket;

/** The time limit for the answer to the handshake; after it the relay counts as one without the handshake, ms. */
export const HANDSHAKE_MS = 2_000;

/** After this time without a frame the client sends a ping, ms. */
export const SILENCE_MS = 20_000;

/** The time limit for the answer to a ping, ms. */
export const PONG_MS = 10_000;

/** The time limit for the answer when the link is probably dead, ms. */
export const URGENT_PONG_MS = 3_000;

/** The close code for a browser's socket that counts as dead. */
const LOST_CODE = 4000;

/** The callbacks of a link's owner. None is called after {@link LinkEvents.closed}. */
export interface LinkEvents {
  /** The relay has admitted the client. Without an `ack` the relay does not know the handshake. */
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
    this._socket.onmessage = ({ data }: { data: unknown }) => this._receive(data);
    this._socket.onclose = ({ code, reason }: Closed) => this._end({ code, reason: String(reason) });
    // A close follows every error. Without a listener `ws` would throw it.
    this._socket.onerror = () => {};
    this._wait(timeout, () => this.drop('no answer in time'));
  }

  /** Whether the relay answers pings. */
  get canProbe(): boolean {
    return this._answersPings;
  }

  /** Sends a frame. Allowed only after `ready`. */
  send(frame: object): void {
    this._socket.send(JSON.stringify(frame));
  }

  /** Sends a ping; drops the link if nothing arrives within `patience` ms. */
  probe(patience: number): void {
    if (!this._answersPings || this._over) return;
    this.send(this._envelope('protocol_ping'));
    this._wait(patience, () => this.drop('the relay does not answer'));
  }

  /** Closes the link as a leave. The owner gets no further calls. */
  leave(): void {
    this._detach();
    this._socket.close(1000);
  }

  /** Drops the link, which counts as dead. */
  drop(reason: string): void {
    // A dead link never completes a close handshake; `ws` can drop the socket at once.
    const socket = this._socket as Socket & { terminate?: () => void };
    if (socket.terminate) socket.terminate();
    // A private code, because the relay would treat a close without one as a leave if it still received it.
    else socket.close(LOST_CODE);
    this._end({ code: 1006, reason });
  }

  private _opened(): void {
    this.send(this._envelope('protocol_handshake'));
    // A relay without the handshake does not answer. The answer of a slow relay still counts when it arrives.
    this._wait(HANDSHAKE_MS, () => this._becomeReady(undefined));
  }

  private _receive(data: unknown): void {
    if (this._answersPings) this._restartSilenceTimer();
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === 'protocol_ack') this._handleAck(frame as Ack);
    else if (frame.type !== 'protocol_pong') this._events.frame(frame);
  }

  private _handleAck(ack: Ack): void {
    // The relay closes the socket with the reason.
    if (!ack.accepted) return;
    this._answersPings = ack.capabilities?.includes('ping') ?? false;
    this._becomeReady(ack);
  }

  private _becomeReady(ack: Ack | undefined): void {
    if (this._ready && !ack) return;
    this._ready = true;
    clearTimeout(this._timer);
    if (this._answersPings) this._restartSilenceTimer();
    this._events.ready(ack);
  }

  private _restartSilenceTimer(): void {
    this._wait(SILENCE_MS, () => this.probe(PONG_MS));
  }

  /** Starts the link's only timer; a link waits for one thing at a time. */
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
