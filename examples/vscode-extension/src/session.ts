/**
 * A session as the editor lives it: the one place that talks to the relay. It knows nothing of VS Code; what is to be
 * seen goes to a `Viewer`.
 */
import { RelayClient, type SyncClientError, SyncErrorType, SyncPhase } from '@gitorial/sync';
import { type Place, toPlace, toState, type Tutorial } from './tutorial';

/** Shows what happens in a session. */
export interface Viewer {
  /** The step at this place is to be seen. */
  showStep(place: Place): void;
  /** Something that a status shows has changed. */
  update(): void;
  /** Asks the user for a yes or a no. */
  ask(question: string): Promise<boolean>;
  tell(message: string): void;
  fail(error: unknown): void;
}

export class Session {
  /** Where the user is: the driver's place when following. */
  place: Place = { index: 0, showsSolution: false };
  private readonly client: RelayClient;
  /** Ends an entry that is still under way when the user leaves. */
  private readonly left = new AbortController();

  constructor(
    readonly tutorial: Tutorial,
    readonly relay: string,
    private readonly viewer: Viewer,
  ) {
    // http becomes ws, and https becomes wss.
    this.client = new RelayClient({ baseUrl: relay, wsUrl: relay.replace(/^http/, 'ws'), sessionEndpoint: '/api/sessions' });
    this.listen();
  }

  get phase(): SyncPhase {
    return this.client.getCurrentSyncPhase();
  }

  get isReconnecting(): boolean {
    return this.client.getConnectionStatus() === 'reconnecting';
  }

  get id(): string | null {
    return this.client.getCurrentSessionId();
  }

  /** Creates a session and drives it. */
  async create(): Promise<void> {
    await this.client.createSessionAndConnect({ tutorial: this.tutorial.title }, this.left);
    await this.client.pullStateFromPeer();
  }

  /** Enters a session and follows whoever drives it. */
  async join(sessionId: string): Promise<void> {
    await this.client.connectToSession(sessionId, this.left);
    await this.client.pushStateToPeer();
  }

  /** Goes some steps on, or back, and takes the others along. At either end it stays where it is. */
  go(steps: number): void {
    const index = this.place.index + steps;
    if (!(index in this.tutorial.steps)) return;
    this.client.sendTutorialState(toState(this.tutorial, { index, showsSolution: false }));
    this.arrive({ index, showsSolution: false });
  }

  // Neither of the two is awaited: a refusal comes as an `error` event, too, and is to be shown once.

  takeControl(): void {
    void this.client.acceptControlTransfer();
  }

  releaseControl(): void {
    void this.client.releaseControl();
  }

  offerControl(): void {
    this.client.offerControlToPeer();
  }

  leave(): void {
    this.left.abort();
    this.client.disconnect();
  }

  private listen(): void {
    this.client
      .on('syncPhaseChanged', ({ newPhase }) => this.entered(newPhase))
      .on('tutorialStateUpdated', (state) => this.follow(toPlace(this.tutorial, state)))
      .on('controlRequested', (request) => void this.answer('Another participant asks for control. Hand it over?', request))
      .on('controlOffered', (offer) => void this.answer('You are offered control. Take it?', offer))
      .on('controlDeclined', () => this.viewer.tell('The other participant declined.'))
      .on('error', (error) => this.viewer.fail(error));
  }

  private entered(phase: SyncPhase): void {
    // Whoever begins to drive says where it is, so that nobody has to wait for its next step.
    if (phase === SyncPhase.ACTIVE && this.client.isActive()) {
      this.client.sendTutorialState(toState(this.tutorial, this.place));
      this.viewer.showStep(this.place);
    }
    this.viewer.update();
  }

  private follow(place: Place | undefined): void {
    if (place) this.arrive(place);
    else this.viewer.tell('The session is about another tutorial: open the folder of that tutorial to follow it.');
  }

  private arrive(place: Place): void {
    this.place = place;
    this.viewer.showStep(place);
    this.viewer.update();
  }

  private async answer(question: string, { accept, decline }: { accept(): Promise<void>; decline(): void }): Promise<void> {
    const yes = await this.viewer.ask(question);
    try {
      if (yes) void accept();
      else decline();
    } catch (error) {
      this.viewer.fail(error);
    }
  }
}

const ADVICE: Partial<Record<SyncErrorType, string>> = {
  [SyncErrorType.CONNECTION_FAILED]: 'The relay cannot be reached: start it, or correct its address in the settings.',
  [SyncErrorType.TIMEOUT]: 'There was no answer in time: try again.',
  [SyncErrorType.ABORTED]: 'The session was left before it was entered.',
  [SyncErrorType.SESSION_NOT_FOUND]: 'This session does not exist or is over: ask for a new link, or create a session.',
  [SyncErrorType.SESSION_ENDED]: 'The session is over: create a new one to go on together.',
  [SyncErrorType.SESSION_FULL]: 'The session is full: try again when somebody has left.',
  [SyncErrorType.CONTROL_REFUSED]: 'You were not given control: try again later.',
  [SyncErrorType.NOT_ACTIVE]: 'You do not drive: take control first.',
  [SyncErrorType.STATE_NOT_SENT]: 'Your last step was not shared: take control to go on.',
  [SyncErrorType.NOTHING_PENDING]: 'That was answered too late: control has moved on meanwhile.',
  [SyncErrorType.INVALID_OPERATION]: 'That is not possible now: click on the status bar to see what is.',
};

/** An error in words that say what to do. */
export function explain(error: unknown): string {
  const { type, message } = error as Partial<SyncClientError>;
  return (type && ADVICE[type]) ?? message ?? 'Something went wrong: try again.';
}
