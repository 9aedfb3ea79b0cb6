/** A connection that reconnects: one {@link Link} after the other, until it is closed or a retry is pointless. */
import { AT_ONCE_MS, retryDelay } from './backoff';
import { closedForGood, type Closed, reconnectTiming } from './codes';
import { SyncClientError, SyncErrorType } from './errors';
import { Link, type LinkEvents, type SocketConstructor, URGENT_PONG_MS } from './link';
import type { Ack, Frame } from './protocol';
import { watchWakes } from './wake';

/** After this time a connection counts as good, and the next loss starts with a short wait again, ms. */
const GOOD_AFTER_MS = 10_000;

/** How a connection is opened and kept. */
export interface ConnectionSettings {
  WebSocket: SocketConstructor;
  /** The address, built for each attempt: it carries the token that proves the client's identity. */
  url: () => string;
  /** The time limit of one attempt, and of the first connection with all its attempts, ms. */
  timeout: number;
  autoReconnect: boolean;
  maxAttempts: number;
  baseDelay: number;
  longestDelay: number;
}

/** The callbacks of a connection's owner. */
export interface ConnectionEvents {
  /** The relay has admitted the client. A slow relay causes two calls, the second one with its `ack`. */
  ready(ack: Ack | undefined): void;
  frame(frame: Frame): void;
  /** The link is lost; the connection tries another. */
  lost(closed: Closed): void;
  /** The connection has ended permanently. */
  ended(error: SyncClientError, closed: Closed): void;
}

/** A connection that reconnects. */
export class Connection {
  private _link: Link | undefined;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _deadline: ReturnType<typeof setTimeout> | undefined;
  /** The number of losses since the last good connection. */
  private _losses = 0;
  private _readyAt: number | undefined;
  private _established = false;
  private _wasOffline = false;
  private readonly _unwatch: () => void;

  constructor(
    private readonly _settings: ConnectionSettings,
    private readonly _events: ConnectionEvents,
  ) {
    this._unwatch = watchWakes({ awake: () => this._wake(), offline: () => this._offline() });
    this._deadline = setTimeout(() => this._giveUp(), _settings.timeout);
    this._open();
  }

  /** Sends a frame if a link is open. */
  send(frame: object): void {
    if (this._readyAt !== undefined) this._link?.send(frame);
  }

  /** Closes the connection. The owner gets no further calls. */
  close(): void {
    this._unwatch();
    clearTimeout(this._timer);
    clearTimeout(this._deadline);
    this._link?.leave();
    this._link = undefined;
  }

  private _open(): void {
    const { WebSocket, url, timeout } = this._settings;
    const events: LinkEvents = {
      ready: (ack) => this._becameReady(ack),
      frame: (frame) => this._events.frame(frame),
      closed: (closed) => this._closed(closed),
    };
    try {
      this._link = new Link(url(), WebSocket, timeout, events);
    } catch (cause) {
      // A browser may forbid this socket, for example `ws:` from an `https:` page.
      this._timer = setTimeout(() => this._closed({ code: 1006, reason: String(cause) }));
    }
  }

  private _becameReady(ack: Ack | undefined): void {
    this._readyAt ??= Date.now();
    this._established = true;
    clearTimeout(this._deadline);
    this._events.ready(ack);
  }

  private _closed(closed: Closed): void {
    this._link = undefined;
    if (this._readyAt !== undefined && Date.now() - this._readyAt >= GOOD_AFTER_MS) this._losses = 0;
    this._readyAt = undefined;
    const end = this._permanentEnd(closed);
    if (end) {
      this.close();
      this._events.ended(end, closed);
      return;
    }
    const { baseDelay, longestDelay } = this._settings;
    this._retryIn(retryDelay(this._losses, reconnectTiming(closed.code), baseDelay, longestDelay));
    this._losses += 1;
    if (this._established) this._events.lost(closed);
  }

  /** The error that ends the connection permanently; `undefined` if there is a further attempt. */
  private _permanentEnd(closed: Closed): SyncClientError | undefined {
    const { autoReconnect, maxAttempts } = this._settings;
    const when = reconnectTiming(closed.code);
    if (when === 'never') return closedForGood(closed);
    if (!this._established) {
      // A relay that restarts or is overloaded will answer later; an unreachable relay may never answer.
      return when === 'soon' ? unreachable(closed) : undefined;
    }
    if (!autoReconnect) return closedForGood(closed);
    if (this._losses >= maxAttempts) {
      return new SyncClientError(SyncErrorType.CONNECTION_LOST, `the relay could not be reached in ${maxAttempts} attempts`);
    }
    return undefined;
  }

  private _retryIn(ms: number): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._open(), ms);
  }

  /** The machine is awake, the page is visible, or the network is back: a retry may succeed now. */
  private _wake(): void {
    if (!this._link) {
      this._retryIn(Math.random() * AT_ONCE_MS);
    } else if (this._readyAt !== undefined) {
      // A link to an old relay cannot be probed, and has probably not survived the loss of the network.
      if (this._wasOffline && !this._link.canProbe) this._link.drop('the network was lost');
      else this._link.probe(URGENT_PONG_MS);
    }
    this._wasOffline = false;
  }

  private _offline(): void {
    this._wasOffline = true;
    this._link?.probe(URGENT_PONG_MS);
  }

  private _giveUp(): void {
    this.close();
    const error = new SyncClientError(SyncErrorType.TIMEOUT, `no connection to the relay in ${this._settings.timeout} ms`);
    this._events.ended(error, { code: 1006, reason: 'no answer in time' });
  }
}

function unreachable({ code, reason }: Closed): SyncClientError {
  const why = reason === '' ? String(code) : `${code} ${reason}`;
  return new SyncClientError(SyncErrorType.CONNECTION_FAILED, `the relay cannot be reached (${why})`, { code: reason });
}
