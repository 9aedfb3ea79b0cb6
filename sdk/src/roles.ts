/**
 * Who drives, as one client knows it: the calls that ask for control, what the relay and the peers say of it, and the
 * one state that waits until it may be sent. Sections "Roles" and "Frames" of docs/protocol.md.
 */
import { ASK_MS, type Call, DECISION_MS, Decisions, type Question } from './decisions';
import { SyncClientError, SyncErrorType, toJson } from './errors';
import type { Emitter } from './events';
import type { Peers } from './peers';
import { type Frame, type FrameType, type Role, text, type TutorialSyncState } from './protocol';
import { type Cause, isConnected, SyncPhase } from './state';

/** The frames that belong to an epoch. Asks do not: they are good whoever drives. */
const OF_AN_EPOCH: ReadonlySet<FrameType> = new Set<FrameType>([
  'state_update',
  'offer_control',
  'accept_control',
  'decline_control',
  'release_control',
]);

/** As many requests are kept as the relay puts to a controller at once. */
const MOST_REQUESTS = 16;

/** The client's place in its session, as far as roles need it. */
export interface Place {
  readonly phase: SyncPhase;
  /** What its peers know it by. */
  readonly name: string;
  /** The relay does not know the handshake, so roles are told as of old. */
  readonly legacy: boolean;
  readonly peers: Peers;
  /** `anew`: an event even if the phase stays. */
  move(cause: Cause, reason: string, anew?: boolean): void;
  send(type: FrameType, data: unknown, epoch?: number): void;
}

/** Who drives, as one client knows it. */
export class Roles {
  /** The last state that was sent or received. */
  last: TutorialSyncState | undefined;

  private readonly _decisions: Decisions;
  private _epoch = 0;
  private _holder: string | undefined;
  private _offer: string | undefined;
  private readonly _requests = new Set<string>();
  /** The state to be sent as soon as it may be. One, the newest. */
  private _held: TutorialSyncState | undefined;
  /** Whether the one state that a follower may begin with is still to be sent. */
  private _mayPush = false;
  /** Whether the role is of this client's own choice: the relay gives one, too, when another client chooses. */
  private _chosen = false;
  /** The phase before the connection was lost, while it is. */
  private _before: SyncPhase | undefined;

  constructor(
    private readonly _place: Place,
    private readonly _events: Emitter,
  ) {
    this._decisions = new Decisions((error) => {
      if (error.type !== SyncErrorType.DISCONNECTED) _events.emit('error', error);
    });
  }

  // The calls.

  /** Asks to drive, and for the state of the others. */
  pull(): Promise<void> {
    this._mayChoose('pullStateFromPeer', 'a role is chosen already: use requestControl() or acceptControlTransfer()');
    return this._coordinate('pullStateFromPeer', SyncPhase.ACTIVE);
  }

  /** Asks to follow; may then begin with one state. */
  push(): Promise<void> {
    this._mayChoose('pushStateToPeer', 'a role is chosen already: releaseControl() gives control up');
    return this._coordinate('pushStateToPeer', SyncPhase.PASSIVE);
  }

  /** Asks whoever drives for control. */
  request(reason?: string): Promise<void> {
    this._mustBe([SyncPhase.CONNECTED_IDLE, SyncPhase.PASSIVE], 'requestControl', 'this client drives already');
    const data = {
      requestingClientId: this._place.name,
      targetClientId: this._holder ?? '',
      requestTimestamp: Date.now(),
      reason,
    };
    return this._ask('requestControl', 'active', 'request_control', data, false);
  }

  /** Hands control to whoever asked first; when not driving: takes control. */
  accept(): Promise<void> {
    if (this._place.phase !== SyncPhase.ACTIVE) return this.take();
    const first = this._requests.values().next().value;
    if (first === undefined) throw nothingPending('nobody has asked for control: offerControlToPeer() offers it');
    return this.grant(first);
  }

  /** Hands control to the one who asked. */
  grant(to: string): Promise<void> {
    if (this._place.phase !== SyncPhase.ACTIVE || !this._requests.delete(to)) throw nothingPending('this request is over');
    const asked = this._ask('acceptControlTransfer', 'passive', 'accept_control', { fromClientId: to, timestamp: Date.now() });
    if (this._place.legacy) this._told('passive', 'control was handed over');
    return asked;
  }

  /** Takes control: what was offered, or without an offer. */
  take(offeredBy = this._offer): Promise<void> {
    this._mustBe([SyncPhase.CONNECTED_IDLE, SyncPhase.PASSIVE], 'acceptControlTransfer', 'this client drives already');
    if (offeredBy !== this._offer) throw nothingPending('this offer is over');
    const data = { fromClientId: offeredBy ?? this._holder ?? '', timestamp: Date.now() };
    this._offer = undefined;
    return this._ask('acceptControlTransfer', 'active', 'accept_control', data);
  }

  /** Refuses the request of `of`, or the oldest; when following: the offer. */
  decline(of?: string): void {
    const active = this._place.phase === SyncPhase.ACTIVE;
    const name = active ? (of ?? this._requests.values().next().value) : this._offer;
    const pending = name !== undefined && (active ? this._requests.delete(name) : of === undefined || of === name);
    if (!pending) throw nothingPending('there is no request or offer to decline');
    if (!active) this._offer = undefined;
    this._send('decline_control', { fromClientId: name, timestamp: Date.now() });
  }

  /** Offers control to the others. */
  offerControl(): void {
    this._mustBe(
      [SyncPhase.ACTIVE],
      'offerControlToPeer',
      'only the client that drives can offer control',
      SyncErrorType.NOT_ACTIVE,
    );
    const peers = this._place.peers.all();
    const metadata = {
      transferTimestamp: Date.now(),
      fromClientId: this._place.name,
      toClientId: peers.length === 1 ? peers[0] : '',
      stateChecksum: '',
    };
    this._send('offer_control', { tutorialState: this.last ?? null, metadata });
  }

  /** Gives control up. */
  release(): Promise<void> {
    this._mustBe([SyncPhase.ACTIVE], 'releaseControl', 'this client does not drive', SyncErrorType.NOT_ACTIVE);
    const asked = this._ask('releaseControl', 'passive', 'release_control', { timestamp: Date.now() });
    // Giving up needs nobody's leave: from now on it sends nothing.
    this._place.move('released', 'control was released');
    if (this._place.legacy) this._decisions.reached('passive');
    return asked;
  }

  /** Sends a state, or keeps it while control is being decided. */
  sendState(state: TutorialSyncState): void {
    const copy = JSON.parse(toJson(state, 'the state')) as TutorialSyncState;
    // What is being decided comes first: a state is meant for the role that was just asked for.
    if (this._mayDriveSoon() || this._decisions.has('pushStateToPeer')) this._held = copy;
    else if (this._place.phase === SyncPhase.ACTIVE || this._mayPush) this._write(copy);
    else throw notActive(this._place.phase);
  }

  /** Asks the others for their state. */
  requestState(): void {
    this._mustBe(
      [SyncPhase.ACTIVE],
      'requestTutorialState',
      'a client that follows is sent the state by itself',
      SyncErrorType.NOT_ACTIVE,
    );
    this._send('request_sync', {});
  }

  // Losing the connection, and coming back.

  /** The connection is gone, perhaps for a while. */
  lost(tooBig: boolean): void {
    if (isConnected(this._place.phase)) this._before = this._place.phase;
    this._offer = this._holder = undefined;
    this._requests.clear();
    this._mayPush = false;
    // The same state would end the next connection, too.
    if (tooBig) this._held = this.last = undefined;
  }

  /** The connection is there, and with it what the relay says is true now. */
  entered(role: Role, epoch: number, resumed: boolean): void {
    const before = this._before;
    const onItsWay = before === SyncPhase.ACTIVE && resumed && epoch === this._epoch;
    this._before = undefined;
    this._epoch = epoch;
    if (role === 'connected') this._chosen = false;
    const undecided = this._decisions.all().length > 0;
    this._decisions.reached(role);
    for (const { type, data } of this._decisions.all()) this._send(type, data);
    // What was written last may have been lost with the connection.
    if (role === 'active' || onItsWay) this._held ??= this.last;
    if (role === 'active' && this._held) this._write(this._held);
    // Control that was kept may still be on its way from a node that died: to ask for it is to wait for it.
    else if (role === 'connected' && !undecided && (onItsWay || !resumed)) this._restore(before);
    this._dropHeld();
  }

  /** Another client is gone, and with it what it asked for or offered. */
  peerLeft(clientId: string): void {
    this._requests.delete(clientId);
    if (this._offer === clientId) this._offer = undefined;
    if (this._holder === clientId) this._holder = undefined;
  }

  /** It is over: nothing is decided any more. */
  ended(error: SyncClientError): void {
    this.lost(false);
    this._before = undefined;
    this._decisions.refuse(() => true, error);
    this._dropHeld();
  }

  /** Asks for the role that was lost with the connection. Nobody waits for this: the phase says how it went. */
  private _restore(before: SyncPhase | undefined): void {
    if (before !== SyncPhase.ACTIVE && before !== SyncPhase.PASSIVE) return;
    this._coordinate('reconnect', before).catch(() => {});
  }

  // What the relay and the peers say.

  /** Takes a frame that came in. */
  understand(frame: Frame): void {
    const stale = this._note(frame);
    const from = frame.clientId ?? '';
    switch (frame.type) {
      case 'assign_sync_direction':
        return this._assigned(text(frame, 'assignedDirection'), text(frame, 'reason'));
      case 'state_update':
        return stale ? undefined : this._received(frame.data);
      case 'request_sync':
        return this._answer();
      case 'request_control':
        return this._requested(from, text(frame, 'reason'));
      case 'offer_control':
        return this._offered(from, frame.data as { tutorialState?: TutorialSyncState } | undefined);
      case 'decline_control':
        return this._declined(from, text(frame, 'fromClientId'));
      case 'release_control':
        return this._freed(from);
      case 'role_changed':
        return this._roleChanged(from, text(frame, 'role') as Role);
      case 'rejected':
        return this._rejected(frame);
      case 'accept_control':
        return this._place.legacy ? this._lostControlTo(from) : undefined;
      case 'confirm_transfer':
        return this._place.legacy ? this._told('active', 'control was handed over') : undefined;
      default:
        return undefined;
    }
  }

  /** Learns the epoch; what belonged to an older one is over. Returns whether the frame itself does. */
  private _note({ epoch }: Frame): boolean {
    if (typeof epoch !== 'number' || epoch <= this._epoch) return typeof epoch === 'number' && epoch < this._epoch;
    this._epoch = epoch;
    this._offer = undefined;
    this._requests.clear();
    return false;
  }

  private _assigned(direction: string | undefined, reason = 'the relay decided so'): void {
    if (direction === 'ACTIVE') return this._told('active', reason);
    if (direction !== 'PASSIVE') return;
    this._told('passive', reason);
    // Relays of before say no more than this.
    if (this._place.legacy) this._decisions.refuse((decision) => decision.wants === 'active', refused('another client drives'));
  }

  /** The client's role, as it is from now on. */
  private _told(role: 'active' | 'passive', reason: string): void {
    const pulled = this._decisions.has('pullStateFromPeer');
    const pushed = this._decisions.has('pushStateToPeer');
    // Who has just chosen hears so, even if the relay had given it that role before.
    this._place.move(role === 'active' ? 'granted' : 'followed', reason, pulled || pushed);
    this._mayPush = role === 'passive' && (pushed || this._mayPush);
    if (role === 'active') this._holder = this._place.name;
    this._decisions.reached(role);
    if (this._held && (role === 'active' || this._mayPush)) this._write(this._held);
    else if (role === 'active' && pulled) this._send('request_sync', {});
  }

  private _received(data: unknown): void {
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

  /** A third client hears of it, too: it concerns only whoever is named. */
  private _declined(clientId: string, whose: string | undefined): void {
    if (whose !== this._place.name) return;
    this._decisions.refuse((decision) => decision.wants === 'active', refused('the client that drives declined', 'declined'));
    this._events.emit('controlDeclined', { clientId });
  }

  private _freed(by: string): void {
    if (by === this._place.name) return;
    this._holder = this._offer = undefined;
    this._mayPush = this._chosen = false;
    this._place.move('freed', 'control was given up');
  }

  private _roleChanged(clientId: string, role: Role): void {
    if (role === 'active') this._holder = clientId;
    else if (this._holder === clientId) this._holder = undefined;
    this._events.emit('roleChanged', { clientId, role });
  }

  /** How a relay of before tells of a transfer: the client that takes control says so itself. */
  private _lostControlTo(clientId: string): void {
    // The answer to a request of ours is a yes, and to be answered by nobody.
    if (this._place.phase !== SyncPhase.ACTIVE && this._decisions.has('requestControl'))
      return this._told('active', 'the request was granted');
    if (this._place.phase === SyncPhase.ACTIVE) this._told('passive', 'another client took control');
    this._send('confirm_transfer', { toClientId: clientId, timestamp: Date.now() });
  }

  private _rejected(frame: Frame): void {
    const [type, code] = [text(frame, 'type') ?? '', text(frame, 'code') ?? ''];
    const why = text(frame, 'message') ?? code;
    // An answer that came too late or twice: nobody waits for it.
    if (type === 'state_update' && code === 'not_active') return;
    if (type === 'state_update') {
      const error = new SyncClientError(SyncErrorType.STATE_NOT_SENT, `the relay refused a state: ${why}`, { code });
      return this._events.emit('error', error);
    }
    const error = refused(`the relay refused ${type || 'a frame'}: ${why}`, code);
    if (!this._decisions.refuse((decision) => decision.type === type, error)) this._events.emit('error', error);
  }

  // What is done about it.

  private _coordinate(call: Call, wants: 'active' | 'passive'): Promise<void> {
    const data = { preferredDirection: wants.toUpperCase(), reason: call };
    return this._ask(call, wants, 'coordinate_sync_direction', data, false);
  }

  private _ask(call: Call, wants: Question['wants'], type: FrameType, data: Question['data'], announced = true): Promise<void> {
    const patience = wants === 'active' ? ASK_MS : DECISION_MS;
    this._chosen = true;
    const asked = this._decisions.add({ call, wants, type, data, patience, announced });
    asked.catch(() => this._dropHeld());
    this._send(type, data);
    return asked;
  }

  private _mayDriveSoon(): boolean {
    return this._before === SyncPhase.ACTIVE || (this._place.phase !== SyncPhase.ACTIVE && this._decisions.wants('active'));
  }

  /** The state that waited will not be sent: says so. */
  private _dropHeld(): void {
    if (!this._held || this._mayDriveSoon() || this._decisions.has('pushStateToPeer')) return;
    if (this._mayPush) return this._write(this._held);
    this._held = undefined;
    const why = 'a state was not sent: this client does not drive';
    this._events.emit('error', new SyncClientError(SyncErrorType.STATE_NOT_SENT, why));
  }

  private _write(state: TutorialSyncState): void {
    this.last = state;
    this._held = undefined;
    this._mayPush = false;
    this._send('state_update', state);
  }

  /** Answers who asks for the state. What it repeats belongs to no epoch, so this does not, either. */
  private _answer(): void {
    if (this.last) this._place.send('state_update', this.last);
  }

  private _send(type: FrameType, data: unknown): void {
    this._place.send(type, data, OF_AN_EPOCH.has(type) && this._epoch > 0 ? this._epoch : undefined);
  }

  /** Idle, or in a role that it has not chosen: whoever chooses at the same time as another must not be thrown at. */
  private _mayChoose(call: Call, why: string): void {
    const { CONNECTED_IDLE, ACTIVE, PASSIVE } = SyncPhase;
    this._mustBe(this._chosen ? [CONNECTED_IDLE] : [CONNECTED_IDLE, ACTIVE, PASSIVE], call, why);
  }

  private _mustBe(phases: SyncPhase[], call: string, why: string, type: SyncErrorType = SyncErrorType.INVALID_OPERATION): void {
    if (phases.includes(this._place.phase)) return;
    const connected = isConnected(this._place.phase);
    const reason = connected ? why : 'there is no connection: wait for connectToSession(), or for the connected event';
    throw new SyncClientError(
      connected ? type : SyncErrorType.INVALID_OPERATION,
      `${call}() is not possible when ${this._place.phase}: ${reason}`,
    );
  }
}

function nothingPending(why: string): SyncClientError {
  return new SyncClientError(SyncErrorType.NOTHING_PENDING, why);
}

function notActive(phase: SyncPhase): SyncClientError {
  const why = `sendTutorialState() is not possible when ${phase}: take control first, by requestControl() or acceptControlTransfer()`;
  return new SyncClientError(SyncErrorType.NOT_ACTIVE, why);
}

function refused(message: string, code?: string): SyncClientError {
  return new SyncClientError(SyncErrorType.CONTROL_REFUSED, message, { code });
}
