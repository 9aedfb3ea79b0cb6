/** A connection that comes back: one {@link Link} after the other, until it is closed or there is no point in trying. */
import { AT_ONCE_MS, retryDelay } from './backoff';
import { closedForGood, type Closed, whenToReturn } from './codes';
import { SyncClientError, SyncErrorType } from './errors';
import { Link, type LinkEvents, type SocketConstructor, URGENT_PONG_MS } from './link';
import type { Ack, Frame } from './protocol';
import { watchWakes } from './wake';

/** After so long a connection counts as good, and the next loss starts with a short wait again, ms. */
const GOOD_AFTER_MS = 10_000;

/** How a connection is made and kept. */
export interface ConnectionSettings {
  WebSocket: SocketConstructor;
  /** Where to, made anew for each attempt: it carries what proves who comes back. */
  url: () => string;
  /** How long an attempt may take, and the first connection with all its attempts, ms. */
  timeout: number;
  autoReconnect: boolean;
  maxAttempts: number;
  baseDelay: number;
  longestDelay: number;
}

/** What a connection tells its owner. */
export interface ConnectionEvents {
  /** The relay has let the client in, or back in. A slow relay may say so twice, with its `ack` the second time. */
  ready(ack: Ack | undefined): void;
  frame(frame: Frame): void;
  /** The link is gone; another is tried. */
  lost(closed: Closed): void;
  /** It is over. */
  ended(error: SyncClientError, closed: Closed): void;
}

/** A connection that comes back. */
export class Connection {
  private _link: Link | undefined;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _deadline: ReturnType<typeof setTimeout> | undefined;
  /** Losses since the last good connection. */
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

  /** Sends a frame, if there is a link. */
  send(frame: object): void {
    if (this._readyAt !== undefined) this._link?.send(frame);
  }

  /** Ends it. The owner hears no more of it. */
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
      // A page may be forbidden to open this socket: `ws:` from `https:`, for one.
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
    const end = this._whyNotAgain(closed);
    if (end) {
      this.close();
      this._events.ended(end, closed);
      return;
    }
    const { baseDelay, longestDelay } = this._settings;
    this._retryIn(retryDelay(this._losses, whenToReturn(closed.code), baseDelay, longestDelay));
    this._losses += 1;
    if (this._established) this._events.lost(closed);
  }

  /** Why there is no further attempt, if there is none. */
  private _whyNotAgain(closed: Closed): SyncClientError | undefined {
    const { autoReconnect, maxAttempts } = this._settings;
    const when = whenToReturn(closed.code);
    if (when === 'never') return closedForGood(closed);
    if (!this._established) {
      // A relay that is about to restart, or has too much to do, is one to wait for; one that is not there is not.
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

  /** The machine is awake, the page is seen, or the network is back: what was waited for may be over. */
  private _wake(): void {
    if (!this._link) {
      this._retryIn(Math.random() * AT_ONCE_MS);
    } else if (this._readyAt !== undefined) {
      // A link of before cannot be asked, but will hardly have outlived the network.
      if (this._wasOffline && !this._link.canProbe) this._link.drop('the network was away');
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
