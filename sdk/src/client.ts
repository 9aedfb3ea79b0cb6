/** The client that a website or an editor uses. */
import { SyncClientError, SyncErrorType } from './errors';
import { type ConnectionStatus, Emitter, type Listener, type RelayClientEvents } from './events';
import type { SocketConstructor } from './link';
import { Membership } from './membership';
import type { SessionData, TutorialSyncState } from './protocol';
import * as sessions from './sessions';
import { isConnected, SyncPhase } from './state';

/** The addresses of the relay and the connection settings. */
export interface RelayClientConfig {
  /** Base URL of the HTTP API: `https://relay.example`. */
  baseUrl: string;
  /** URL of the WebSocket: `wss://relay.example`. */
  wsUrl: string;
  /** Path of the session API: `/api/sessions`. */
  sessionEndpoint: string;
  /** The time limit of a connection attempt or an HTTP call, ms. 10,000 by default. */
  connectionTimeout?: number;
  /** Whether to reconnect after a lost connection. True by default. */
  autoReconnect?: boolean;
  /** The number of failed attempts in a row before the client gives up. No limit by default, until the session ends. */
  maxReconnectAttempts?: number;
  /** The bound of the first wait before a reconnect, ms. It doubles with each attempt. 1,000 by default. */
  reconnectDelay?: number;
  /** The longest wait before a reconnect, ms. 30,000 by default. */
  maxReconnectDelay?: number;
  /** The WebSocket to use instead of the platform's. */
  WebSocket?: SocketConstructor;
  /** The `fetch` to use instead of the platform's. */
  fetch?: typeof globalThis.fetch;
}

/** Options for joining a session. */
export interface ConnectOptions {
  /** Aborts the call when it fires. */
  signal?: AbortSignal;
}

/**
 * A client of a session. All clients of a session stay on the same step of a tutorial.
 *
 * One client of a session is the controller (ACTIVE): its states go to all followers (PASSIVE). See {@link SyncPhase}
 * for the phases and `syncPhaseChanged` for their changes. A call that is not possible in a phase throws a
 * {@link SyncClientError} that says what to do instead. A promise settles when the relay has decided.
 *
 * An event is delivered after the call that caused it has settled, each event in its own task. A listener that throws
 * affects neither the client nor other listeners: the thrown value is reported as an `error` event.
 *
 * The client reconnects after a lost connection, to whichever node of the relay answers. It keeps its identity and,
 * within the relay's grace period, its role.
 */
export class RelayClient {
  private readonly _events = new Emitter();
  private readonly _clientId = `client_${randomName()}`;
  private readonly _api: sessions.Api;
  private readonly _config: RelayClientConfig;
  private _membership: Membership | undefined;
  private _sessionId: string | undefined;

  constructor(config: RelayClientConfig) {
    const { connectionTimeout: timeout = 10_000, fetch = globalThis.fetch } = config;
    mustBeUrl(config.wsUrl, 'wsUrl', ['ws:', 'wss:']);
    const base = mustBeUrl(config.baseUrl, 'baseUrl', ['http:', 'https:']).replace(/\/+$/, '');
    const path = config.sessionEndpoint.replace(/^\/*/, '/').replace(/\/+$/, '');
    this._config = config;
    this._api = { url: base + path, timeout, fetch: (...args) => fetch(...args) };
  }

  // Sessions.

  /**
   * Creates a session without joining it.
   *
   * @param metadata - any value that JSON can represent; every client that has the session's id can read it
   */
  createSession(metadata?: unknown, options?: sessions.SessionOptions): Promise<SessionData> {
    return sessions.create(this._api, metadata, options);
  }

  /** Creates a session and joins it. */
  async createSessionAndConnect(metadata?: unknown, options?: sessions.SessionOptions): Promise<SessionData> {
    this._mustBeDisconnected('createSessionAndConnect');
    const session = await this.createSession(metadata, options);
    await this.connectToSession(session.id, options);
    return session;
  }

  /** Reads a session; `null` if it does not exist. The default is the session that this client is in. */
  async getSession(sessionId = this._sessionId, options: ConnectOptions = {}): Promise<SessionData | null> {
    return sessionId === undefined ? null : sessions.get(this._api, sessionId, options.signal);
  }

  /** Ends a session for all its clients. */
  deleteSession(sessionId: string, options: ConnectOptions = {}): Promise<void> {
    return sessions.remove(this._api, sessionId, options.signal);
  }

  /** Lists the relay's sessions, if its operator allows that. */
  listSessions(options?: { adminToken?: string; signal?: AbortSignal }): Promise<SessionData[]> {
    return sessions.list(this._api, options);
  }

  /** Joins a session. Settles when the relay has admitted this client. `null`, as from a URL's query, is refused. */
  async connectToSession(sessionId: string | null, options: ConnectOptions = {}): Promise<void> {
    this._mustBeDisconnected('connectToSession');
    const { signal } = options;
    if (typeof sessionId !== 'string' || sessionId === '') {
      throw new SyncClientError(SyncErrorType.INVALID_CONFIG, 'connectToSession() needs the id of a session');
    }
    if (signal?.aborted) throw aborted(signal);
    const membership = new Membership(this._membershipSettings(sessionId), this._events);
    this._membership = membership;
    this._sessionId = sessionId;
    const abort = (): void => membership.leave(aborted(signal));
    signal?.addEventListener('abort', abort);
    try {
      await membership.entered;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Leaves the session. Rejects the undecided calls; leaves no timer and no socket. */
  disconnect(): void {
    this._membership?.leave(new SyncClientError(SyncErrorType.DISCONNECTED, 'disconnect() was called'));
  }

  // Phase.

  /** The current phase. */
  getCurrentSyncPhase(): SyncPhase {
    return this._membership?.phase ?? SyncPhase.DISCONNECTED;
  }

  /** Whether the client is connected without a role. */
  isConnectedIdle(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.CONNECTED_IDLE;
  }

  /** Whether the client is the controller. */
  isActive(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.ACTIVE;
  }

  /** Whether the client is a follower. */
  isPassive(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.PASSIVE;
  }

  /**
   * Chooses the role of controller and asks the other clients for their state. Only in CONNECTED_IDLE, or in a role
   * that the relay gave because another client chose first. Rejects with `control_refused` if another client keeps
   * control; this client is then a follower.
   */
  async pullStateFromPeer(): Promise<void> {
    await this._inSession().roles.pull();
  }

  /**
   * Chooses the role of follower; the client may then send one initial state. Only in CONNECTED_IDLE, or in a role that
   * the relay gave because another client chose first.
   */
  async pushStateToPeer(): Promise<void> {
    await this._inSession().roles.push();
  }

  // State.

  /**
   * Sends a state to all other clients. The controller may send any number; a client that has just chosen to follow may
   * send one. The newest state is kept while control is being decided, and while a controller's connection is lost. It is
   * sent as soon as that is allowed; otherwise an `error` event of the type `state_not_sent` reports it.
   */
  sendTutorialState(state: TutorialSyncState): void {
    this._inSession().roles.sendState(state);
  }

  /** Asks the other clients for their state; it arrives as `tutorialStateUpdated`. Only when ACTIVE. */
  requestTutorialState(): void {
    this._inSession().roles.requestState();
  }

  /** The last state that was sent or received, or `null`. */
  getLastTutorialState(): TutorialSyncState | null {
    return this._membership?.roles.last ?? null;
  }

  // Control.

  /** Asks the controller for control. Settles when control is granted; rejects when it is refused or not answered. */
  async requestControl(reason?: string): Promise<void> {
    await this._inSession().roles.request(reason);
  }

  /** Offers control to the other clients. Only when ACTIVE. */
  offerControlToPeer(): void {
    this._inSession().roles.offerControl();
  }

  /**
   * When ACTIVE: hands control to the client that asked first. Otherwise takes control: accepts the offer or, without
   * an offer, takes control from the controller. Need not be awaited: a refusal is also an `error` event.
   */
  acceptControlTransfer(): Promise<void> {
    return this._inSession().roles.accept();
  }

  /** Declines the oldest request or the offer. */
  declineControl(): void {
    this._inSession().roles.decline();
  }

  /** Releases control; the client is then a follower. Need not be awaited. Only when ACTIVE. */
  releaseControl(): Promise<void> {
    return this._inSession().roles.release();
  }

  // Status.

  /** Whether the client is connected to its session now. */
  isConnected(): boolean {
    return isConnected(this.getCurrentSyncPhase());
  }

  /** The state of the connection. */
  getConnectionStatus(): ConnectionStatus {
    return this._membership?.status ?? 'disconnected';
  }

  /** The session that this client is in or reconnects to, or `null`. */
  getCurrentSessionId(): string | null {
    return this.getCurrentSyncPhase() === SyncPhase.DISCONNECTED ? null : (this._sessionId ?? null);
  }

  /** The id by which the other clients know this client. */
  getClientId(): string {
    return this._membership?.name ?? this._clientId;
  }

  /** The other clients of the session. */
  getPeers(): string[] {
    return this._membership?.peers.all() ?? [];
  }

  // Events.

  /** Calls `listener` for every `event`. */
  on<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    this._events.on(event, listener);
    return this;
  }

  /** Calls `listener` for the next `event`. */
  once<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    const once: Listener<E> = (...args) => {
      this.off(event, once);
      listener(...args);
    };
    return this.on(event, once);
  }

  /** Removes `listener`. */
  off<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    this._events.off(event, listener);
    return this;
  }

  private _membershipSettings(sessionId: string): ConstructorParameters<typeof Membership>[0] {
    const { wsUrl, connectionTimeout: timeout = 10_000, autoReconnect = true } = this._config;
    const { maxReconnectAttempts: maxAttempts = Infinity, reconnectDelay: baseDelay = 1_000 } = this._config;
    const { maxReconnectDelay: longestDelay = 30_000, WebSocket = globalThis.WebSocket } = this._config;
    if (typeof WebSocket !== 'function') {
      throw new SyncClientError(
        SyncErrorType.INVALID_CONFIG,
        'this platform has no WebSocket: set WebSocket in the configuration',
      );
    }
    const clientId = this._clientId;
    return { wsUrl, sessionId, clientId, timeout, autoReconnect, maxAttempts, baseDelay, longestDelay, WebSocket };
  }

  private _inSession(): Membership {
    if (this._membership && this.getCurrentSyncPhase() !== SyncPhase.DISCONNECTED) return this._membership;
    const why = 'there is no session: call createSessionAndConnect() or connectToSession() first';
    throw new SyncClientError(SyncErrorType.INVALID_OPERATION, why);
  }

  private _mustBeDisconnected(call: string): void {
    if (this.getCurrentSyncPhase() === SyncPhase.DISCONNECTED) return;
    const why = `${call}() is not possible when ${this.getCurrentSyncPhase()}: call disconnect() first`;
    throw new SyncClientError(SyncErrorType.INVALID_OPERATION, why);
  }
}

function aborted(signal?: AbortSignal): SyncClientError {
  return new SyncClientError(SyncErrorType.ABORTED, 'the call was aborted', { cause: signal?.reason });
}

/** A random client id. Not a secret: the other clients see it. */
function randomName(): string {
  const part = (): string => Math.random().toString(36).slice(2, 12);
  return part() + part();
}

function mustBeUrl(value: string, name: string, protocols: string[]): string {
  let protocol: string | undefined;
  try {
    protocol = new URL(value).protocol;
  } catch {
    // Reported below.
  }
  if (protocol !== undefined && protocols.includes(protocol)) return value;
  throw new SyncClientError(SyncErrorType.INVALID_CONFIG, `${name} must be a URL that begins with ${protocols.join('// or ')}//`);
}
