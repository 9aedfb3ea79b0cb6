/** A client's membership of one session, from `connectToSession` to `disconnect`, over all its connections. */
import type { Closed } from './codes';
import { Connection, type ConnectionSettings } from './connection';
import { SyncClientError, SyncErrorType } from './errors';
import type { ConnectionStatus, Emitter } from './events';
import { Peers } from './peers';
import { type Ack, type Frame, type FrameType, PROTOCOL_VERSION } from './protocol';
import { type RoleHost, Roles } from './roles';
import { type Cause, isConnected, next, SyncPhase } from './state';

/** Frames that `protocol_ack` supersedes: they are older, or they are for a client without the handshake. */
const SUPERSEDED_BY_ACK: ReadonlySet<FrameType> = new Set<FrameType>([
  'assign_sync_direction',
  'accept_control',
  'confirm_transfer',
]);

/** The session, the client and the connection settings of a membership. */
export interface MembershipSettings extends Omit<ConnectionSettings, 'url'> {
  wsUrl: string;
  sessionId: string;
  clientId: string;
}

/** A client's membership of one session. */
export class Membership implements RoleHost {
  phase: SyncPhase = SyncPhase.DISCONNECTED;
  status: ConnectionStatus = 'disconnected';
  name: string;
  legacy = false;
  readonly peers: Peers;
  readonly roles: Roles;
  /** Settles when the relay has admitted the client for the first time; rejects if it does not. */
  readonly entered: Promise<void>;

  private readonly _connection: Connection;
  private _settleEntry!: (error?: SyncClientError) => void;
  private _hasEntered = false;
  private _token: string | undefined;
  /** The frames that arrived before the relay admitted the client. */
  private _early: Frame[] = [];

  constructor(
    private readonly _settings: MembershipSettings,
    private readonly _events: Emitter,
  ) {
    this.name = _settings.clientId;
    this.peers = new Peers(_events);
    this.roles = new Roles(this, _events);
    this.entered = new Promise((resolve, reject) => {
      this._settleEntry = (error) => (error ? reject(error) : resolve());
    });
    this.move('connect', 'connectToSession was called');
    this._connection = new Connection(
      { ..._settings, url: () => this._url() },
      {
        ready: (ack) => this._ready(ack),
        frame: (frame) => this._receive(frame),
        lost: (closed) => this._lost(closed),
        ended: (error, closed) => this._ended(error, closed),
      },
    );
  }

  /** Leaves the session. Rejects undecided calls with `error`. */
  leave(error: SyncClientError): void {
    if (this.phase === SyncPhase.DISCONNECTED) return;
    this._connection.close();
    this._finish(error, { code: 1000, reason: error.message });
  }

  move(cause: Cause, reason: string, always = false): void {
    const oldPhase = this.phase;
    const newPhase = next(oldPhase, cause);
    if (newPhase === oldPhase && !always) return;
    this.phase = newPhase;
    this._updateStatus();
    this._events.emit('syncPhaseChanged', { oldPhase, previousPhase: oldPhase, newPhase, reason });
  }

  send(type: FrameType, data: unknown, epoch?: number): void {
    const clientId = this.name;
    this._connection.send({ type, clientId, data, timestamp: Date.now(), protocol_version: PROTOCOL_VERSION, epoch });
  }

  private _url(): string {
    const url = new URL(this._settings.wsUrl);
    url.searchParams.set('session', this._settings.sessionId);
    url.searchParams.set('client', this._settings.clientId);
    if (this._token !== undefined) url.searchParams.set('resume', this._token);
    return url.href;
  }

  private _ready(ack: Ack | undefined): void {
    this.legacy = ack === undefined;
    this._token = ack?.resume ?? this._token;
    this.name = ack?.clientId ?? this.name;
    // The handshake's answer is late: the client counts as admitted already.
    if (isConnected(this.phase)) return;
    const { role = 'connected', epoch = 0, resumed = false } = ack ?? {};
    const reconnected = this._hasEntered;
    this._hasEntered = true;
    this.move({ returned: role }, reconnected ? 'reconnected' : 'connected');
    this._settleEntry();
    this._events.emit('connected', { sessionId: this._settings.sessionId, reconnected, resumed });
    this.peers.opened();
    this.roles.entered(role, epoch, resumed);
    const early = this._early.filter(({ type }) => this.legacy || !SUPERSEDED_BY_ACK.has(type));
    this._early = [];
    for (const frame of early) this.roles.understand(frame);
  }

  private _receive(frame: Frame): void {
    const { type, clientId } = frame;
    if (type === 'client_connected' || type === 'client_disconnected') {
      if (clientId !== undefined && clientId !== this.name) this._presence(clientId, type === 'client_connected');
    } else if (isConnected(this.phase)) {
      this.roles.understand(frame);
    } else {
      this._early.push(frame);
    }
  }

  private _presence(clientId: string, here: boolean): void {
    if (here) return this.peers.joined(clientId);
    this.roles.peerLeft(clientId);
    this.peers.left(clientId);
  }

  private _lost(closed: Closed): void {
    this._resetConnection(closed);
    this.move('lost', `the connection was lost (${closed.code} ${closed.reason})`);
    this._events.emit('disconnected', { ...closed, willReconnect: true });
  }

  private _ended(error: SyncClientError, closed: Closed): void {
    this._finish(error, closed);
    if (this._hasEntered) this._events.emit('error', error);
  }

  private _finish(error: SyncClientError, closed: Closed): void {
    this._resetConnection(closed);
    this.move('ended', error.message);
    this._settleEntry(error);
    this.roles.ended(error);
    if (this._hasEntered) this._events.emit('disconnected', { ...closed, willReconnect: false });
  }

  /** Drops the state that belongs to one connection. */
  private _resetConnection({ code }: Closed): void {
    const tooBig = code === 1009;
    this._early = [];
    this.peers.closed();
    this.roles.lost(tooBig);
    if (!tooBig) return;
    this._events.emit('error', new SyncClientError(SyncErrorType.FRAME_TOO_BIG, 'a frame was bigger than the relay accepts'));
  }

  private _updateStatus(): void {
    const trying = this._hasEntered ? 'reconnecting' : 'connecting';
    const status = isConnected(this.phase) ? 'connected' : this.phase === SyncPhase.CONNECTING ? trying : 'disconnected';
    if (status === this.status) return;
    this.status = status;
    this._events.emit('connectionStatusChanged', status);
  }
}
