/** The events of a client, and how they reach its listeners: in order, each in a task of its own. */
import { SyncClientError, SyncErrorType } from './errors';
import type { Role, TutorialSyncState } from './protocol';
import type { SyncPhase } from './state';

/** The phase has changed. */
export interface SyncPhaseChangeEvent {
  oldPhase: SyncPhase;
  /** The same as `oldPhase`, under the name that older code uses. */
  previousPhase: SyncPhase;
  newPhase: SyncPhase;
  /** Why, in words for a log. */
  reason: string;
}

/** The client is in its session. */
export interface ConnectedEvent {
  sessionId: string;
  /** Whether it was in it before and came back. */
  reconnected: boolean;
  /** Whether it kept its identity and role while it was away. */
  resumed: boolean;
}

/** The connection has ended. */
export interface DisconnectedEvent {
  /** The close code; 1006 if the connection was lost without one. */
  code: number;
  reason: string;
  /** Whether the client tries to come back by itself. */
  willReconnect: boolean;
}

/** Another client asks for control. Answer with {@link accept} or {@link decline}, within 30 seconds. */
export interface ControlRequestEvent {
  /** Who asks. */
  clientId: string;
  /** Why, in its own words. */
  reason?: string;
  /** Hands control over. Settles when the relay has done so. */
  accept(): Promise<void>;
  /** Refuses. */
  decline(): void;
}

/** The client that drives offers control. Answer with {@link accept} or {@link decline}, within 30 seconds. */
export interface ControlOfferEvent {
  /** Who offers. */
  clientId: string;
  /** Where it stands, if it said so. */
  state?: TutorialSyncState;
  /** Takes control. Settles when the relay has decided. */
  accept(): Promise<void>;
  /** Refuses. */
  decline(): void;
}

/** Another client has refused: a request of ours or an offer of ours. */
export interface ControlDeclinedEvent {
  /** Who refused. */
  clientId: string;
}

/** Some client of the session has another role. */
export interface RoleChangedEvent {
  clientId: string;
  role: Role;
}

/** Whether there is a connection. */
export type ConnectionStatus = 'disconnected' | 'connecting' | 'connected' | 'reconnecting';

/** The events of a client, and what their listeners are given. */
export interface RelayClientEvents {
  /** In the session, for the first time or again. */
  connected: [event: ConnectedEvent];
  /** The connection has ended. */
  disconnected: [event: DisconnectedEvent];
  /** The connection has come, gone, or is being tried again. */
  connectionStatusChanged: [status: ConnectionStatus];
  /** The phase has changed, or was chosen by `pullStateFromPeer()` or `pushStateToPeer()` when it was that already. */
  syncPhaseChanged: [event: SyncPhaseChangeEvent];
  /** Another client's state has come in. */
  tutorialStateUpdated: [state: TutorialSyncState];
  /** Another client asks for control. */
  controlRequested: [event: ControlRequestEvent];
  /** The client that drives offers control. */
  controlOffered: [event: ControlOfferEvent];
  /** A request or an offer of this client was refused. */
  controlDeclined: [event: ControlDeclinedEvent];
  /** Another client is in the session. */
  clientConnected: [clientId: string];
  /** Another client has left. */
  clientDisconnected: [clientId: string];
  /** Some client has another role. */
  roleChanged: [event: RoleChangedEvent];
  /** Something went wrong that no call could report. */
  error: [error: SyncClientError];
}

/** A listener of one event. */
export type Listener<E extends keyof RelayClientEvents> = (...event: RelayClientEvents[E]) => void;

type Task = () => void;
declare const setImmediate: ((task: Task) => void) | undefined;

/** Runs `task` in a task of its own. Timers will not do: browsers hold them back in tabs that are not seen. */
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
 * Calls listeners. An event is delivered in a later task than the one that raised it, so that whoever awaits a call
 * goes on first and can still register listeners for what the call brought about. Each event has a task of its own, for
 * the same reason; their order is kept.
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
    // Nobody listens for errors: they must be seen somewhere.
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
    const error = new SyncClientError(SyncErrorType.LISTENER_FAILED, `a listener of '${event}' threw: ${why}`, { cause });
    if (event === 'error') console.error('@gitorial/sync:', error);
    else this.emit('error', error);
  }
}
