/** The events of a client and their delivery to listeners: in order, each in its own task. */
import { SyncClientError, SyncErrorType } from './errors';
import type { Role, TutorialSyncState } from './protocol';
import type { SyncPhase } from './state';

/** The phase has changed. */
export interface SyncPhaseChangeEvent {
  oldPhase: SyncPhase;
  /** The same as `oldPhase`, under the name that older code uses. */
  previousPhase: SyncPhase;
  newPhase: SyncPhase;
  /** The reason, as a text for a log. */
  reason: string;
}

/** The client is connected to its session. */
export interface ConnectedEvent {
  sessionId: string;
  /** Whether this is a reconnect. */
  reconnected: boolean;
  /** Whether the client kept its identity and role during the loss. */
  resumed: boolean;
}

/** The connection has ended. */
export interface DisconnectedEvent {
  /** The close code; 1006 if the connection was lost without one. */
  code: number;
  reason: string;
  /** Whether the client reconnects automatically. */
  willReconnect: boolean;
}

/** Another client asks for control. Answer with {@link accept} or {@link decline}, within 30 seconds. */
export interface ControlRequestEvent {
  /** The client that asks. */
  clientId: string;
  /** The reason that this client gave. */
  reason?: string;
  /** Hands control over. Settles when the relay has decided. */
  accept(): Promise<void>;
  /** Declines. */
  decline(): void;
}

/** The controller offers control. Answer with {@link accept} or {@link decline}, within 30 seconds. */
export interface ControlOfferEvent {
  /** The client that offers. */
  clientId: string;
  /** The state of this client, if the offer contains one. */
  state?: TutorialSyncState;
  /** Takes control. Settles when the relay has decided. */
  accept(): Promise<void>;
  /** Declines. */
  decline(): void;
}

/** Another client has declined a request or an offer of this client. */
export interface ControlDeclinedEvent {
  /** The client that declined. */
  clientId: string;
}

/** The role of a client of the session has changed. */
export interface RoleChangedEvent {
  clientId: string;
  role: Role;
}

/** The state of the connection. */
export type ConnectionStatus = 'disconnected' | 'connecting' | 'connected' | 'reconnecting';

/** The events of a client, with the arguments of their listeners. */
export interface RelayClientEvents {
  /** The client is connected to its session, for the first time or again. */
  connected: [event: ConnectedEvent];
  /** The connection has ended. */
  disconnected: [event: DisconnectedEvent];
  /** The state of the connection has changed. */
  connectionStatusChanged: [status: ConnectionStatus];
  /** The phase has changed, or `pullStateFromPeer()` or `pushStateToPeer()` has confirmed the current one. */
  syncPhaseChanged: [event: SyncPhaseChangeEvent];
  /** A state of another client has arrived. */
  tutorialStateUpdated: [state: TutorialSyncState];
  /** Another client asks for control. */
  controlRequested: [event: ControlRequestEvent];
  /** The controller offers control. */
  controlOffered: [event: ControlOfferEvent];
  /** Another client declined a request or an offer of this client. */
  controlDeclined: [event: ControlDeclinedEvent];
  /** Another client has joined the session or was already in it. */
  clientConnected: [clientId: string];
  /** Another client has left the session. */
  clientDisconnected: [clientId: string];
  /** The role of a client has changed. */
  roleChanged: [event: RoleChangedEvent];
  /** A failure that no call could report. */
  error: [error: SyncClientError];
}

/** A listener of one event. */
export type Listener<E extends keyof RelayClientEvents> = (...event: RelayClientEvents[E]) => void;

type Task = () => void;
declare const setImmediate: ((task: Task) => void) | undefined;

/** Runs `task` in its own task. Not by a timer, because browsers throttle timers in hidden tabs. */
const soon: (task: Task) => void =
  typeof setImmediate === 'function'
    ? (task) => setImmediate!(task)
    : (task) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => {
          port1.close();
          task();
        };
        port2.postMessage(0);
      };

/**
 * Calls listeners. An event is delivered in a later task than the one that raised it, so that code that awaits a call
 * continues first and can still register listeners for the events of that call. Each event has its own task for the
 * same reason. Events keep their order.
 */
export class Emitter {
  private readonly _listeners = new Map<keyof RelayClientEvents, Listener<never>[]>();
  private readonly _queue: Task[] = [];

  on<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): void {
    this._listeners.set(event, [...(this._listeners.get(event) ?? []), listener]);
  }

  off<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): void {
    const before = this._listeners.get(event) ?? [];
    const at = before.indexOf(listener);
    if (at >= 0)
      this._listeners.set(
        event,
        before.filter((_, index) => index !== at),
      );
  }

  emit<E extends keyof RelayClientEvents>(event: E, ...args: RelayClientEvents[E]): void {
    this._queue.push(() => this._deliver(event, args));
    if (this._queue.length === 1) soon(() => this._deliverNext());
  }

  private _deliverNext(): void {
    try {
      this._queue[0]?.();
    } finally {
      this._queue.shift();
      if (this._queue.length > 0) soon(() => this._deliverNext());
    }
  }

  private _deliver<E extends keyof RelayClientEvents>(event: E, args: RelayClientEvents[E]): void {
    const listeners = (this._listeners.get(event) ?? []) as unknown as Listener<E>[];
    // Without a listener the console reports the error, so that it is not lost.
    if (event === 'error' && listeners.length === 0) console.error('@gitorial/sync:', args[0]);
    for (const listener of listeners) {
      try {
        listener(...args);
      } catch (cause) {
        this._failed(event, cause);
      }
    }
  }

  private _failed(event: keyof RelayClientEvents, cause: unknown): void {
    const why = cause instanceof Error ? cause.message : String(cause);
    const error = new SyncClientError(SyncErrorType.LISTENER_FAILED, `a listener for '${event}' threw: ${why}`, { cause });
    if (event === 'error') console.error('@gitorial/sync:', error);
    else this.emit('error', error);
  }
}
