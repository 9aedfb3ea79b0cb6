/** A session of the editor. Only this module uses the relay. It does not use VS Code; a `Viewer` shows everything. */
import { RelayClient, type SyncClientError, SyncErrorType, SyncPhase } from '@gitorial/sync';
import { type Place, toPlace, toState, type Tutorial } from './tutorial';

/** Shows the events of a session. */
export interface Viewer {
  /** Shows the step at this place. */
  showStep(place: Place): void;
  /** Updates the status after a change. */
  update(): void;
  /** Asks the user for a yes or a no. */
  ask(question: string): Promise<boolean>;
  tell(message: string): void;
  fail(error: unknown): void;
}

export class Session {
  /** The place of the user; for a follower, the controller's place. */
  place: Place = { index: 0, showsSolution: false };
  private readonly client: RelayClient;
  /** Aborts a pending join when the user leaves. */
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

  /** Creates a session and becomes its controller. */
  async create(): Promise<void> {
    await this.client.createSessionAndConnect({ tutorial: this.tutorial.title }, this.left);
    await this.client.pullStateFromPeer();
  }

  /** Joins a session as a follower. */
  async join(sessionId: string): Promise<void> {
    await this.client.connectToSession(sessionId, this.left);
    await this.client.pushStateToPeer();
  }

  /** Moves by some steps and sends the place to the other clients. Does nothing at either end. */
  go(steps: number): void {
    const index = this.place.index + steps;
    if (!(index in this.tutorial.steps)) return;
    this.client.sendTutorialState(toState(this.tutorial, { index, showsSolution: false }));
    this.arrive({ index, showsSolution: false });
  }

  // Neither call is awaited: a refusal is also an `error` event, and the user should see it once.

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
      .on('syncPhaseChanged', ({ newPhase }) => this.phaseChanged(newPhase))
      .on('tutorialStateUpdated', (state) => this.follow(toPlace(this.tutorial, state)))
      .on('controlRequested', (request) => void this.answer('Another participant asks for control. Hand it over?', request))
      .on('controlOffered', (offer) => void this.answer('You are offered control. Take it?', offer))
      .on('controlDeclined', () => this.viewer.tell('The other participant declined.'))
      .on('error', (error) => this.viewer.fail(error));
  }

  private phaseChanged(phase: SyncPhase): void {
    // A new controller sends its place at once, so that no follower waits for its next step.
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
  [SyncErrorType.ABORTED]: 'You left the session before the join was complete.',
  [SyncErrorType.SESSION_NOT_FOUND]: 'This session does not exist or has ended: ask for a new link, or create a session.',
  [SyncErrorType.SESSION_ENDED]: 'The session has ended: create a new one to continue together.',
  [SyncErrorType.SESSION_FULL]: 'The session is full: try again after a participant has left.',
  [SyncErrorType.CONTROL_REFUSED]: 'Control was refused: try again later.',
  [SyncErrorType.NOT_ACTIVE]: 'You are not in control: take control first.',
  [SyncErrorType.STATE_NOT_SENT]: 'Your last step was not shared: take control to continue.',
  [SyncErrorType.NOTHING_PENDING]: 'The answer was too late: control has moved already.',
  [SyncErrorType.INVALID_OPERATION]: 'This action is not possible now: click on the status bar to see the possible actions.',
};

/** The message of an error, which says what to do. */
export function explain(error: unknown): string {
  const { type, message } = error as Partial<SyncClientError>;
  return (type && ADVICE[type]) ?? message ?? 'Something went wrong: try again.';
}
