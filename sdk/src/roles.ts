/**
 * The roles as one client knows them: the calls that ask for control, the frames of the relay and of the peers that
 * change it, and the one state that waits until it may be sent. Sections "Roles" and "Frames" of docs/protocol.md.
 */
import { ASK_MS, type Call, DECISION_MS, Decisions, type Question } from './decisions';
import { SyncClientError, SyncErrorType, toJson } from './errors';
import type { Emitter } from './events';
import type { Peers } from './peers';
import { type Frame, type FrameType, type Role, text, type TutorialSyncState } from './protocol';
import { type Cause, isConnected, SyncPhase } from './state';

/** The frames that belong to an epoch. A request does not: it is valid for any controller. */
const OF_AN_EPOCH: ReadonlySet<FrameType> = new Set<FrameType>([
  'state_update',
  'offer_control',
  'accept_control',
  'decline_control',
  'release_control',
]);

/** The number of requests that are kept; the relay forwards no more to a controller at once. */
const MOST_REQUESTS = 16;

/** The part of a membership that the roles need. */
export interface RoleHost {
  readonly phase: SyncPhase;
  /** The id by which its peers know this client. */
  readonly name: string;
  /** Whether the relay does not know the handshake and uses the older frames for roles. */
  readonly legacy: boolean;
  readonly peers: Peers;
  /** Changes the phase. `always`: emits an event even if the phase stays. */
  move(cause: Cause, reason: string, always?: boolean): void;
  send(type: FrameType, data: unknown, epoch?: number): void;
}

/** The roles as one client knows them. */
export class Roles {
  /** The last state that was sent or received. */
  last: TutorialSyncState | undefined;

  private readonly _decisions: Decisions;
  private _epoch = 0;
  private _controller: string | undefined;
  private _offer: string | undefined;
  private readonly _requests = new Set<string>();
  /** The newest state that waits until it may be sent. */
  private _pendingState: TutorialSyncState | undefined;
  /** Whether a follower may still send its one initial state. */
  private _mayPushState = false;
  /** Whether this client chose its role. The relay also assigns a role when another client chooses. */
  private _hasChosenRole = false;
  /** The phase before the loss, while the connection is lost. */
  private _phaseBeforeLoss: SyncPhase | undefined;

  constructor(
    private readonly _host: RoleHost,
    private readonly _events: Emitter,
  ) {
    this._decisions = new Decisions((error) => {
      if (error.type !== SyncErrorType.DISCONNECTED) _events.emit('error', error);
    });
  }

  // The calls.

  /** Asks for the role of controller, and then for the state of the other clients. */
  pull(): Promise<void> {
    this._mayChoose('pullStateFromPeer', 'a role is chosen already: call requestControl() or acceptControlTransfer()');
    return this._coordinate('pullStateFromPeer', SyncPhase.ACTIVE);
  }

  /** Asks for the role of follower; the client may then send one initial state. */
  push(): Promise<void> {
    this._mayChoose('pushStateToPeer', 'a role is chosen already: call releaseControl() to follow');
    return this._coordinate('pushStateToPeer', SyncPhase.PASSIVE);
  }

  /** Asks the controller for control. */
  request(reason?: string): Promise<void> {
    this._mustBe([SyncPhase.CONNECTED_IDLE, SyncPhase.PASSIVE], 'requestControl', 'this client has control already');
    const data = {
      requestingClientId: this._host.name,
      targetClientId: this._controller ?? '',
      requestTimestamp: Date.now(),
      reason,
    };
    return this._ask('requestControl', 'active', 'request_control', data, false);
  }

  /** As controller: hands control to the client that asked first. Otherwise: takes control. */
  accept(): Promise<void> {
    if (this._host.phase !== SyncPhase.ACTIVE) return this.take();
    const first = this._requests.values().next().value;
    if (first === undefined) throw nothingPending('no client has asked for control: call offerControlToPeer() to offer it');
    return this.grant(first);
  }

  /** Hands control to a client that asked. */
  grant(to: string): Promise<void> {
    if (this._host.phase !== SyncPhase.ACTIVE || !this._requests.delete(to)) throw nothingPending('this request is over');
    const asked = this._ask('acceptControlTransfer', 'passive', 'accept_control', { fromClientId: to, timestamp: Date.now() });
    if (this._host.legacy) this._setRole('passive', 'control was handed over');
    return asked;
  }

  /** Takes control, with or without an offer. */
  take(offeredBy = this._offer): Promise<void> {
    this._mustBe([SyncPhase.CONNECTED_IDLE, SyncPhase.PASSIVE], 'acceptControlTransfer', 'this client has control already');
    if (offeredBy !== this._offer) throw nothingPending('this offer is over');
    const data = { fromClientId: offeredBy ?? this._controller ?? '', timestamp: Date.now() };
    this._offer = undefined;
    return this._ask('acceptControlTransfer', 'active', 'accept_control', data);
  }

  /** As controller: declines the request of `of`, or the oldest one. As follower: declines the offer. */
  decline(of?: string): void {
    const active = this._host.phase === SyncPhase.ACTIVE;
    const name = active ? (of ?? this._requests.values().next().value) : this._offer;
    const pending = name !== undefined && (active ? this._requests.delete(name) : of === undefined || of === name);
    if (!pending) throw nothingPending('there is no request or offer to decline');
    if (!active) this._offer = undefined;
    this._send('decline_control', { fromClientId: name, timestamp: Date.now() });
  }

  /** Offers control to the other clients. */
  offerControl(): void {
    this._mustBe([SyncPhase.ACTIVE], 'offerControlToPeer', 'only the controller can offer control', SyncErrorType.NOT_ACTIVE);
    const peers = this._host.peers.all();
    const metadata = {
      transferTimestamp: Date.now(),
      fromClientId: this._host.name,
      toClientId: peers.length === 1 ? peers[0] : '',
      stateChecksum: '',
    };
    this._send('offer_control', { tutorialState: this.last ?? null, metadata });
  }

  /** Releases control. */
  release(): Promise<void> {
    this._mustBe([SyncPhase.ACTIVE], 'releaseControl', 'this client is not the controller', SyncErrorType.NOT_ACTIVE);
    const asked = this._ask('releaseControl', 'passive', 'release_control', { timestamp: Date.now() });
    // A release needs no decision, so the client sends no states from now on.
    this._host.move('released', 'control was released');
    if (this._host.legacy) this._decisions.reached('passive');
    return asked;
  }

  /** Sends a state, or keeps it while control is undecided. */
  sendState(state: TutorialSyncState): void {
    const copy = JSON.parse(toJson(state, 'the state')) as TutorialSyncState;
    // The undecided call comes first: the state is meant for the role that the call asks for.
    if (this._mayGetControl() || this._decisions.has('pushStateToPeer')) this._pendingState = copy;
    else if (this._host.phase === SyncPhase.ACTIVE || this._mayPushState) this._write(copy);
    else throw notActive(this._host.phase);
  }

  /** Asks the other clients for their state. */
  requestState(): void {
    this._mustBe(
      [SyncPhase.ACTIVE],
      'requestTutorialState',
      'a follower gets every state automatically',
      SyncErrorType.NOT_ACTIVE,
    );
    this._send('request_sync', {});
  }

  // Loss of the connection, and reconnect.

  /** The connection is lost, perhaps temporarily. */
  lost(tooBig: boolean): void {
    if (isConnected(this._host.phase)) this._phaseBeforeLoss = this._host.phase;
    this._offer = this._controller = undefined;
    this._requests.clear();
    this._mayPushState = false;
    // The same state would also end the next connection.
    if (tooBig) this._pendingState = this.last = undefined;
  }

  /** The relay has admitted the client, with this role and epoch. */
  entered(role: Role, epoch: number, resumed: boolean): void {
    const before = this._phaseBeforeLoss;
    const isReturning = before === SyncPhase.ACTIVE && resumed && epoch === this._epoch;
    this._phaseBeforeLoss = undefined;
    this._epoch = epoch;
    if (role === 'connected') this._hasChosenRole = false;
    const undecided = this._decisions.all().length > 0;
    this._decisions.reached(role);
    for (const { type, data } of this._decisions.all()) this._send(type, data);
    // The last state may have been lost with the connection.
    if (role === 'active' || isReturning) this._pendingState ??= this.last;
    if (role === 'active' && this._pendingState) this._write(this._pendingState);
    // Control that the relay kept may still have to move from a dead node: asking for it waits for that.
    else if (role === 'connected' && !undecided && (isReturning || !resumed)) this._restore(before);
    this._dropPendingState();
  }

  /** Another client has left; its request and its offer end. */
  peerLeft(clientId: string): void {
    this._requests.delete(clientId);
    if (this._offer === clientId) this._offer = undefined;
    if (this._controller === clientId) this._controller = undefined;
  }

  /** The membership has ended: rejects every undecided call. */
  ended(error: SyncClientError): void {
    this.lost(false);
    this._phaseBeforeLoss = undefined;
    this._decisions.refuse(() => true, error);
    this._dropPendingState();
  }

  /** Asks for the role that was lost with the connection. Nothing awaits the result: the phase shows it. */
  private _restore(before: SyncPhase | undefined): void {
    if (before !== SyncPhase.ACTIVE && before !== SyncPhase.PASSIVE) return;
    this._coordinate('reconnect', before).catch(() => {});
  }

  // Frames of the relay and of the peers.

  /** Handles a received frame. */
  understand(frame: Frame): void {
    const stale = this._updateEpoch(frame);
    const from = frame.clientId ?? '';
    switch (frame.type) {
      case 'assign_sync_direction':
        return this._assigned(text(frame, 'assignedDirection'), text(frame, 'reason'));
      case 'state_update':
        return stale ? undefined : this._stateReceived(frame.data);
      case 'request_sync':
        return this._answerSync();
      case 'request_control':
        return this._requested(from, text(frame, 'reason'));
      case 'offer_control':
        return this._offered(from, frame.data as { tutorialState?: TutorialSyncState } | undefined);
      case 'decline_control':
        return this._declined(from, text(frame, 'fromClientId'));
      case 'release_control':
        return this._controlReleased(from);
      case 'role_changed':
        return this._roleChanged(from, text(frame, 'role') as Role);
      case 'rejected':
        return this._rejected(frame);
      case 'accept_control':
        return this._host.legacy ? this._lostControlTo(from) : undefined;
      case 'confirm_transfer':
        return this._host.legacy ? this._setRole('active', 'control was handed over') : undefined;
      default:
        return undefined;
    }
  }

  /** Advances the epoch, which ends requests and offers of an older one. Returns whether the frame is stale. */
  private _updateEpoch({ epoch }: Frame): boolean {
    if (typeof epoch !== 'number' || epoch <= this._epoch) return typeof epoch === 'number' && epoch < this._epoch;
    this._epoch = epoch;
    this._offer = undefined;
    this._requests.clear();
    return false;
  }

  private _assigned(direction: string | undefined, reason = 'assigned by the relay'): void {
    if (direction === 'ACTIVE') return this._setRole('active', reason);
    if (direction !== 'PASSIVE') return;
    this._setRole('passive', reason);
    // An old relay sends no refusal besides this frame.
    if (this._host.legacy)
      this._decisions.refuse((decision) => decision.wants === 'active', refused('another client has control'));
  }

  /** Sets the role that the client has from now on. */
  private _setRole(role: 'active' | 'passive', reason: string): void {
    const pulled = this._decisions.has('pullStateFromPeer');
    const pushed = this._decisions.has('pushStateToPeer');
    // A client that has just chosen gets an event even if the relay had assigned it that role before.
    this._host.move(role === 'active' ? 'granted' : 'followed', reason, pulled || pushed);
    this._mayPushState = role === 'passive' && (pushed || this._mayPushState);
    if (role === 'active') this._controller = this._host.name;
    this._decisions.reached(role);
    if (this._pendingState && (role === 'active' || this._mayPushState)) this._write(this._pendingState);
    else if (role === 'active' && pulled) this._send('request_sync', {});
  }

  private _stateReceived(data: unknown): void {
    if (typeof data !== 'object' || data === null) return;
    this.last = data as TutorialSyncState;
    this._events.emit('tutorialStateUpdated', this.last);
  }

  private _requested(clientId: string, reason: string | undefined): void {
    if (this._requests.size >= MOST_REQUESTS) return;
    this._requests.add(clientId);
    const answers = { accept: () => this.grant(clientId), decline: () => this.decline(clientId) };
    this._events.emit('controlRequested', { clientId, reason, ...answers });
  }

  private _offered(clientId: string, data: { tutorialState?: TutorialSyncState } | undefined): void {
    this._offer = clientId;
    const answers = { accept: () => this.take(clientId), decline: () => this.decline(clientId) };
    this._events.emit('controlOffered', { clientId, state: data?.tutorialState ?? undefined, ...answers });
  }

  /** A third client receives this frame, too; only the named client handles it. */
  private _declined(clientId: string, whose: string | undefined): void {
    if (whose !== this._host.name) return;
    this._decisions.refuse((decision) => decision.wants === 'active', refused('the controller declined', 'declined'));
    this._events.emit('controlDeclined', { clientId });
  }

  private _controlReleased(by: string): void {
    if (by === this._host.name) return;
    this._controller = this._offer = undefined;
    this._mayPushState = this._hasChosenRole = false;
    this._host.move('freed', 'the controller released control');
  }

  private _roleChanged(clientId: string, role: Role): void {
    if (role === 'active') this._controller = clientId;
    else if (this._controller === clientId) this._controller = undefined;
    this._events.emit('roleChanged', { clientId, role });
  }

  /** A transfer on an old relay: the client that takes control announces it itself. */
  private _lostControlTo(clientId: string): void {
    // This frame grants this client's own request, and needs no answer.
    if (this._host.phase !== SyncPhase.ACTIVE && this._decisions.has('requestControl'))
      return this._setRole('active', 'the request was granted');
    if (this._host.phase === SyncPhase.ACTIVE) this._setRole('passive', 'another client took control');
    this._send('confirm_transfer', { toClientId: clientId, timestamp: Date.now() });
  }

  private _rejected(frame: Frame): void {
    const [type, code] = [text(frame, 'type') ?? '', text(frame, 'code') ?? ''];
    const why = text(frame, 'message') ?? code;
    // An answer that was late or doubled: no call waits for it.
    if (type === 'state_update' && code === 'not_active') return;
    if (type === 'state_update') {
      const error = new SyncClientError(SyncErrorType.STATE_NOT_SENT, `the relay refused a state: ${why}`, { code });
      return this._events.emit('error', error);
    }
    const error = refused(`the relay refused ${type || 'a frame'}: ${why}`, code);
    if (!this._decisions.refuse((decision) => decision.type === type, error)) this._events.emit('error', error);
  }

  // Questions, states and checks.

  private _coordinate(call: Call, wants: 'active' | 'passive'): Promise<void> {
    const data = { preferredDirection: wants.toUpperCase(), reason: call };
    return this._ask(call, wants, 'coordinate_sync_direction', data, false);
  }

  private _ask(call: Call, wants: Question['wants'], type: FrameType, data: Question['data'], announced = true): Promise<void> {
    const patience = wants === 'active' ? ASK_MS : DECISION_MS;
    this._hasChosenRole = true;
    const asked = this._decisions.add({ call, wants, type, data, patience, announced });
    asked.catch(() => this._dropPendingState());
    this._send(type, data);
    return asked;
  }

  private _mayGetControl(): boolean {
    return (
      this._phaseBeforeLoss === SyncPhase.ACTIVE || (this._host.phase !== SyncPhase.ACTIVE && this._decisions.wants('active'))
    );
  }

  /** Reports a waiting state that will not be sent. */
  private _dropPendingState(): void {
    if (!this._pendingState || this._mayGetControl() || this._decisions.has('pushStateToPeer')) return;
    if (this._mayPushState) return this._write(this._pendingState);
    this._pendingState = undefined;
    const why = 'a state was not sent: this client is not the controller';
    this._events.emit('error', new SyncClientError(SyncErrorType.STATE_NOT_SENT, why));
  }

  private _write(state: TutorialSyncState): void {
    this.last = state;
    this._pendingState = undefined;
    this._mayPushState = false;
    this._send('state_update', state);
  }

  /** Answers a request for the state. A repeated state belongs to no epoch, so the frame names none. */
  private _answerSync(): void {
    if (this.last) this._host.send('state_update', this.last);
  }

  private _send(type: FrameType, data: unknown): void {
    this._host.send(type, data, OF_AN_EPOCH.has(type) && this._epoch > 0 ? this._epoch : undefined);
  }

  /**
   * Allows a choice when idle, or in a role that the client has not chosen. Otherwise a client that chooses at the same
   * time as another would get an error.
   */
  private _mayChoose(call: Call, why: string): void {
    const { CONNECTED_IDLE, ACTIVE, PASSIVE } = SyncPhase;
    this._mustBe(this._hasChosenRole ? [CONNECTED_IDLE] : [CONNECTED_IDLE, ACTIVE, PASSIVE], call, why);
  }

  private _mustBe(phases: SyncPhase[], call: string, why: string, type: SyncErrorType = SyncErrorType.INVALID_OPERATION): void {
    if (phases.includes(this._host.phase)) return;
    const connected = isConnected(this._host.phase);
    const reason = connected ? why : 'not connected: wait for connectToSession() or the connected event';
    throw new SyncClientError(
      connected ? type : SyncErrorType.INVALID_OPERATION,
      `${call}() is not possible when ${this._host.phase}: ${reason}`,
    );
  }
}

function nothingPending(why: string): SyncClientError {
  return new SyncClientError(SyncErrorType.NOTHING_PENDING, why);
}

function notActive(phase: SyncPhase): SyncClientError {
  const why = `sendTutorialState() is not possible when ${phase}: take control first with requestControl() or acceptControlTransfer()`;
  return new SyncClientError(SyncErrorType.NOT_ACTIVE, why);
}

function refused(message: string, code?: string): SyncClientError {
  return new SyncClientError(SyncErrorType.CONTROL_REFUSED, message, { code });
}
