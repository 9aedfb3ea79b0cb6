/** The client: what a website or an editor uses. */
import { SyncClientError, SyncErrorType } from './errors';
import { type ConnectionStatus, Emitter, type Listener, type RelayClientEvents } from './events';
import type { SocketConstructor } from './link';
import { Membership } from './membership';
import type { SessionData, TutorialSyncState } from './protocol';
import * as sessions from './sessions';
import { isConnected, SyncPhase } from './state';

/** Where the relay is, and how to reach it. */
export interface RelayClientConfig {
  /** Base URL of the HTTP API: `https://relay.example`. */
  baseUrl: string;
  /** URL of the WebSocket: `wss://relay.example`. */
  wsUrl: string;
  /** Path of the session API: `/api/sessions`. */
  sessionEndpoint: string;
  /** How long a connection or an HTTP call may take, ms. 10,000 by default. */
  connectionTimeout?: number;
  /** Whether to come back after a lost connection. True by default. */
  autoReconnect?: boolean;
  /** How often to try in a row before giving up. Without end by default: a session that is over ends it. */
  maxReconnectAttempts?: number;
  /** The bound of the first wait before coming back, ms. It doubles with each attempt. 1,000 by default. */
  reconnectDelay?: number;
  /** The longest wait before coming back, ms. 30,000 by default. */
  maxReconnectDelay?: number;
  /** The WebSocket to use instead of the platform's. */
  WebSocket?: SocketConstructor;
  /** The `fetch` to use instead of the platform's. */
  fetch?: typeof globalThis.fetch;
}

/** How to enter a session. */
export interface ConnectOptions {
  /** Gives up when it fires. */
  signal?: AbortSignal;
}

/**
 * A client of a session: one of those that stay on the same step of a tutorial.
 *
 * One client of a session is ACTIVE: it drives, and its states go to all others, which are PASSIVE. See
 * {@link SyncPhase} for the phases and `syncPhaseChanged` for their changes. A call that is not possible in a phase
 * throws a {@link SyncClientError} that says what to do instead. Promises settle when the relay has decided.
 *
 * Events come after the call that brought them about has settled, each in a task of its own. A listener that throws
 * disturbs nobody: what it threw is an `error` event.
 *
 * A lost connection comes back by itself, with the same identity and, within the relay's grace period, the same role,
 * whichever node of the relay answers.
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
   * Creates a session, without entering it.
   *
   * @param metadata - anything that JSON can carry; whoever has the session's id can read it
   */
  createSession(metadata?: unknown, options?: sessions.SessionOptions): Promise<SessionData> {
    return sessions.create(this._api, metadata, options);
  }

  /** Creates a session and enters it. */
  async createSessionAndConnect(metadata?: unknown, options?: sessions.SessionOptions): Promise<SessionData> {
    this._mustBeDisconnected('createSessionAndConnect');
    const session = await this.createSession(metadata, options);
    await this.connectToSession(session.id, options);
    return session;
  }

  /** Reads a session; `null` if there is none of this id. Without an id: the session this client is in. */
  async getSession(sessionId = this._sessionId, options: ConnectOptions = {}): Promise<SessionData | null> {
    return sessionId === undefined ? null : sessions.get(this._api, sessionId, options.signal);
  }

  /** Ends a session for everybody in it. */
  deleteSession(sessionId: string, options: ConnectOptions = {}): Promise<void> {
    return sessions.remove(this._api, sessionId, options.signal);
  }

  /** Lists the relay's sessions, where its operator allows that. */
  listSessions(options?: { adminToken?: string; signal?: AbortSignal }): Promise<SessionData[]> {
    return sessions.list(this._api, options);
  }

  /** Enters a session. Settles when the relay has let this client in. `null`, as a query may be, is refused. */
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

  /** Leaves the session. Undecided calls are rejected; no timer and no socket is left. */
  disconnect(): void {
    this._membership?.leave(new SyncClientError(SyncErrorType.DISCONNECTED, 'disconnect() was called'));
  }

  // Phase.

  /** The phase of now. */
  getCurrentSyncPhase(): SyncPhase {
    return this._membership?.phase ?? SyncPhase.DISCONNECTED;
  }

  /** Connected, without a role. */
  isConnectedIdle(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.CONNECTED_IDLE;
  }

  /** Drives. */
  isActive(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.ACTIVE;
  }

  /** Follows. */
  isPassive(): boolean {
    return this.getCurrentSyncPhase() === SyncPhase.PASSIVE;
  }

  /**
   * Chooses to drive, and asks the others for their state. Only in CONNECTED_IDLE, or in a role that the relay gave
   * because another client chose first. Rejects with `control_refused` if another drives and does not let go; the client
   * then follows.
   */
  async pullStateFromPeer(): Promise<void> {
    await this._inSession().roles.pull();
  }

  /**
   * Chooses to follow; one state may then be sent to begin with. Only in CONNECTED_IDLE, or in a role that the relay gave
   * because another client chose first.
   */
  async pushStateToPeer(): Promise<void> {
    await this._inSession().roles.push();
  }

  // State.

  /**
   * Sends a state to all others. Only the ACTIVE client may, and one that has just chosen to follow, once. While control
   * is being decided, or the connection is away and this client drove, the newest state is kept and sent when it may be;
   * if that never happens, an `error` event of the kind `state_not_sent` says so.
   */
  sendTutorialState(state: TutorialSyncState): void {
    this._inSession().roles.sendState(state);
  }

  /** Asks the others for their state; it comes as `tutorialStateUpdated`. Only when ACTIVE. */
  requestTutorialState(): void {
    this._inSession().roles.requestState();
  }

  /** The last state that was sent or received, or `null`. */
  getLastTutorialState(): TutorialSyncState | null {
    return this._membership?.roles.last ?? null;
  }

  // Control.

  /** Asks whoever drives for control. Settles when it was given, or rejects when it was refused or not answered. */
  async requestControl(reason?: string): Promise<void> {
    await this._inSession().roles.request(reason);
  }

  /** Offers control to the others. Only when ACTIVE. */
  offerControlToPeer(): void {
    this._inSession().roles.offerControl();
  }

  /**
   * When ACTIVE: hands control to the client that asked first. Otherwise takes control: what was offered, or, without an
   * offer, from whoever drives. Need not be awaited: a refusal is an `error` event, too.
   */
  acceptControlTransfer(): Promise<void> {
    return this._inSession().roles.accept();
  }

  /** Refuses the oldest request, or the offer. */
  declineControl(): void {
    this._inSession().roles.decline();
  }

  /** Gives control up and follows. Need not be awaited. Only when ACTIVE. */
  releaseControl(): Promise<void> {
    return this._inSession().roles.release();
  }

  // Status.

  /** Whether the client is in its session now. */
  isConnected(): boolean {
    return isConnected(this.getCurrentSyncPhase());
  }

  /** Whether there is a connection, or one is tried. */
  getConnectionStatus(): ConnectionStatus {
    return this._membership?.status ?? 'disconnected';
  }

  /** The session that this client is in or comes back to, or `null`. */
  getCurrentSessionId(): string | null {
    return this.getCurrentSyncPhase() === SyncPhase.DISCONNECTED ? null : (this._sessionId ?? null);
  }

  /** What the others know this client by. */
  getClientId(): string {
    return this._membership?.name ?? this._clientId;
  }

  /** The other clients of the session. */
  getPeers(): string[] {
    return this._membership?.peers.all() ?? [];
  }

  // Events.

  /** Calls `listener` at every `event`. */
  on<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    this._events.on(event, listener);
    return this;
  }

  /** Calls `listener` at the next `event`. */
  once<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    const once: Listener<E> = (...args) => {
      this.off(event, once);
      listener(...args);
    };
    return this.on(event, once);
  }

  /** Calls `listener` no more. */
  off<E extends keyof RelayClientEvents>(event: E, listener: Listener<E>): this {
    this._events.off(event, listener);
    return this;
  }

  private _membershipSettings(sessionId: string): ConstructorParameters<typeof Membership>[0] {
    const { wsUrl, connectionTimeout: timeout = 10_000, autoReconnect = true } = this._config;
    const { maxReconnectAttempts: maxAttempts = Infinity, reconnectDelay: baseDelay = 1_000 } = this._config;
    const { maxReconnectDelay: longestDelay = 30_000, WebSocket = globalThis.WebSocket } = this._config;
    if (typeof WebSocket !== 'function') {
      throw new SyncClientError(SyncErrorType.INVALID_CONFIG, 'this platform has no WebSocket: give one in the settings');
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

/** Not a secret: what others know a client by. */
function randomName(): string {
  const part = (): string => Math.random().toString(36).slice(2, 12);
  return part() + part();
}

function mustBeUrl(value: string, name: string, protocols: string[]): string {
  let protocol: string | undefined;
  try {
    protocol = new URL(value).protocol;
  } catch {
    // Said below.
  }
  if (protocol !== undefined && protocols.includes(protocol)) return value;
  throw new SyncClientError(SyncErrorType.INVALID_CONFIG, `${name} must be a URL that begins with ${protocols.join('// or ')}//`);
}
