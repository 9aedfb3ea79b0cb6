/** The session that this page is in, or none yet: the one place that talks to the relay. It knows nothing of the page. */
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
  /** Where the relay is. */
  relay = '';
  question: Question | undefined;
  /** What the user should know, in words. */
  notice = '';
  /** Whether a session is just being created or entered. */
  isEntering = false;
  private client: RelayClient | undefined;
  private driver: string | null = null;

  /** Calls `changed` whenever there is something new to show. */
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

  get somebodyDrives(): boolean {
    return this.driver !== null;
  }

  /** Creates a session and drives it. */
  create(relay: string): Promise<void> {
    return this.enter(relay, async (client) => {
      await client.createSessionAndConnect();
      await client.pullStateFromPeer();
    });
  }

  /** Enters a session and follows whoever drives it. */
  join(relay: string, sessionId: string): Promise<void> {
    return this.enter(relay, async (client) => {
      await client.connectToSession(sessionId);
      await client.pushStateToPeer();
    });
  }

  /** Goes to a place, and takes the others along. Alone, one reads as one likes. */
  go(place: Place): Promise<void> {
    if (!(place.index in STEPS)) return Promise.resolve();
    return this.attempt(() => {
      if (this.phase !== SyncPhase.DISCONNECTED) this.client?.sendTutorialState(toState(place));
      this.place = place;
    });
  }

  /** Asks whoever drives. Settles when they have answered. */
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
    this.isEntering = true;
    await this.attempt(async () => {
      // http becomes ws, and https becomes wss.
      const client = new RelayClient({ baseUrl: relay, wsUrl: relay.replace(/^http/, 'ws'), sessionEndpoint: '/api/sessions' });
      this.relay = relay;
      this.client = client;
      this.driver = null;
      this.listen(client);
      await how(client);
    });
    this.isEntering = false;
    this.changed();
  }

  private listen(client: RelayClient): void {
    client
      .on('connected', () => void this.attempt(() => this.findDriver(client)))
      .on('syncPhaseChanged', ({ newPhase }) => this.entered(newPhase))
      .on('roleChanged', ({ clientId, role }) => {
        if (role === 'active') this.driver = clientId;
        else if (this.driver === clientId) this.driver = null;
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

  /** Who drives when this client comes in; later `roleChanged` tells. */
  private async findDriver(client: RelayClient): Promise<void> {
    const before = this.driver;
    const found = (await client.getSession())?.activeClientId ?? null;
    // What `roleChanged` told meanwhile is newer.
    if (this.driver === before) this.driver = found;
  }

  private entered(phase: SyncPhase): void {
    // What was asked belongs to the role that has just ended.
    this.question = undefined;
    // Whoever begins to drive says where it is, so that nobody has to wait for its next step.
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

  /** Does what the user wants, and shows why if that fails. */
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
