/** The session of this page, if it has one. Only this module uses the relay; it does not touch the page. */
import { type ConnectionStatus, RelayClient, SyncPhase } from '@gitorial/sync';
import { explain } from './errors';
import { type Place, STEPS, toPlace, toState } from './tutorial';

/** A request or an offer of control that waits for the user's answer. */
export interface Question {
  text: string;
  accept(): Promise<void>;
  decline(): void;
}

export class Session {
  place: Place = { index: 0, showsSolution: false };
  /** The address of the relay. */
  relay = '';
  question: Question | undefined;
  /** A message for the user. */
  notice = '';
  /** Whether a session is being created or joined. */
  isJoining = false;
  private client: RelayClient | undefined;
  private controller: string | null = null;

  /** Calls `changed` after each change that the page shows. */
  constructor(private readonly changed: () => void) {}

  get id(): string | null {
    return this.client?.getCurrentSessionId() ?? null;
  }

  get phase(): SyncPhase {
    return this.client?.getCurrentSyncPhase() ?? SyncPhase.DISCONNECTED;
  }

  get connection(): ConnectionStatus {
    return this.client?.getConnectionStatus() ?? 'disconnected';
  }

  get peers(): number {
    return this.client?.getPeers().length ?? 0;
  }

  get hasController(): boolean {
    return this.controller !== null;
  }

  /** Creates a session and becomes its controller. */
  create(relay: string): Promise<void> {
    return this.enter(relay, async (client) => {
      await client.createSessionAndConnect();
      await client.pullStateFromPeer();
    });
  }

  /** Joins a session as a follower. */
  join(relay: string, sessionId: string): Promise<void> {
    return this.enter(relay, async (client) => {
      await client.connectToSession(sessionId);
      await client.pushStateToPeer();
    });
  }

  /** Moves to a place and sends it to the other clients. Without a session it only moves. */
  go(place: Place): Promise<void> {
    if (!(place.index in STEPS)) return Promise.resolve();
    return this.attempt(() => {
      if (this.phase !== SyncPhase.DISCONNECTED) this.client?.sendTutorialState(toState(place));
      this.place = place;
    });
  }

  /** Asks the controller for control. Settles when it has answered. */
  askForControl(): Promise<void> {
    return this.attempt(async () => {
      const answered = this.client?.requestControl();
      this.tell('You asked for control: waiting for the answer.');
      await answered;
      this.tell('');
    });
  }

  // These are not awaited: a refusal comes as an `error` event, too, and is to be shown once.

  takeControl(): Promise<void> {
    return this.attempt(() => void this.client?.acceptControlTransfer());
  }

  releaseControl(): Promise<void> {
    return this.attempt(() => void this.client?.releaseControl());
  }

  answer(yes: boolean): Promise<void> {
    const { question } = this;
    this.question = undefined;
    return this.attempt(() => (yes ? void question?.accept() : question?.decline()));
  }

  offerControl(): Promise<void> {
    return this.attempt(() => this.client?.offerControlToPeer());
  }

  leave(): void {
    this.client?.disconnect();
  }

  private async enter(relay: string, how: (client: RelayClient) => Promise<void>): Promise<void> {
    this.isJoining = true;
    await this.attempt(async () => {
      // http becomes ws, and https becomes wss.
      const client = new RelayClient({ baseUrl: relay, wsUrl: relay.replace(/^http/, 'ws'), sessionEndpoint: '/api/sessions' });
      this.relay = relay;
      this.client = client;
      this.controller = null;
      this.listen(client);
      await how(client);
    });
    this.isJoining = false;
    this.changed();
  }

  private listen(client: RelayClient): void {
    client
      .on('connected', () => void this.attempt(() => this.findController(client)))
      .on('syncPhaseChanged', ({ newPhase }) => this.phaseChanged(newPhase))
      .on('roleChanged', ({ clientId, role }) => {
        if (role === 'active') this.controller = clientId;
        else if (this.controller === clientId) this.controller = null;
        this.changed();
      })
      .on('tutorialStateUpdated', (state) => this.follow(toPlace(state)))
      .on('controlRequested', (request) => this.ask('Another participant asks for control.', request))
      .on('controlOffered', (offer) => this.ask('You are offered control.', offer))
      .on('controlDeclined', () => this.tell('The other participant declined.'))
      .on('clientConnected', this.changed)
      .on('clientDisconnected', this.changed)
      .on('error', (error) => this.tell(explain(error)));
  }

  /** Finds the controller when this client has connected; later changes come by `roleChanged`. */
  private async findController(client: RelayClient): Promise<void> {
    const before = this.controller;
    const found = (await client.getSession())?.activeClientId ?? null;
    // A `roleChanged` event in the meantime is newer.
    if (this.controller === before) this.controller = found;
  }

  private phaseChanged(phase: SyncPhase): void {
    // The question belongs to the role that has just ended.
    this.question = undefined;
    // A new controller sends its place at once, so that no follower waits for its next step.
    if (phase === SyncPhase.ACTIVE && this.client?.isActive()) this.client.sendTutorialState(toState(this.place));
    this.changed();
  }

  private follow(place: Place | undefined): void {
    if (!place) return this.tell('The session is about another tutorial: open the page of that tutorial to follow it.');
    this.place = place;
    this.changed();
  }

  private ask(text: string, { accept, decline }: Omit<Question, 'text'>): void {
    this.question = { text, accept, decline };
    this.changed();
  }

  private tell(notice: string): void {
    this.notice = notice;
    this.changed();
  }

  /** Runs an action of the user and shows its error. */
  private async attempt(action: () => unknown): Promise<void> {
    this.tell('');
    try {
      await action();
    } catch (error) {
      this.notice = explain(error);
    }
    this.changed();
  }
}
