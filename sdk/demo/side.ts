/** One side: its client and its place in the tutorial. It does not touch the page. */
import { RelayClient, SyncPhase, type ControlOfferEvent, type ControlRequestEvent } from '../src/browser';
import { type ObservedFrame, observed } from './frames';
import type { SideName } from './link';
import { STEPS, stateAt } from './tutorial';

/** An offer or a request of the other side that waits for an answer. */
export interface Question {
  text: string;
  accept(): Promise<void>;
  decline(): void;
}

/** The callbacks of a side's view. */
export interface SideEvents {
  changed(): void;
  frame(frame: ObservedFrame): void;
  message(text: string, bad: boolean): void;
}

/** One side. */
export class Side {
  client: RelayClient | undefined;
  question: Question | undefined;
  index = 0;
  solved = false;

  constructor(
    readonly name: SideName,
    private readonly _events: SideEvents,
  ) {}

  get phase(): SyncPhase {
    return this.client?.getCurrentSyncPhase() ?? SyncPhase.DISCONNECTED;
  }

  /** Joins a session through a node. */
  async connect(node: string, session: string): Promise<void> {
    this.client?.disconnect();
    this.client = this._clientOf(node);
    await this.client.connectToSession(session);
    this._events.changed();
  }

  /** Creates a session through a node without joining it. */
  async create(node: string): Promise<string> {
    const { id } = await this._clientOf(node).createSession({ tutorial: 'count-words' });
    return id;
  }

  leave(): void {
    this.client?.disconnect();
    this.question = undefined;
    this._events.changed();
  }

  /** Whether this side is the controller. */
  get isController(): boolean {
    return this.phase === SyncPhase.ACTIVE;
  }

  /** Moves to this step and sends it to the other side. */
  show(index: number, solved: boolean): void {
    if (index < 0 || index >= STEPS.length) return;
    this.client?.sendTutorialState(stateAt(index, solved));
    [this.index, this.solved] = [index, solved];
    this._events.changed();
  }

  /** Calls the client and reports the result. */
  async call(what: string, call: (client: RelayClient) => unknown): Promise<void> {
    const { client } = this;
    if (client) await this.attempt(what, () => call(client));
  }

  /** Runs an action and reports its text result, `done` or its error. */
  async attempt(what: string, action: () => unknown): Promise<void> {
    try {
      const result = await action();
      this._events.message(`${what}: ${typeof result === 'string' ? result : 'done'}`, false);
    } catch (error) {
      this._events.message(error instanceof Error ? error.message : String(error), true);
    }
    this._events.changed();
  }

  async answer(accept: boolean): Promise<void> {
    const question = this.question;
    this.question = undefined;
    await this.call(accept ? 'accept()' : 'decline()', () => (accept ? question?.accept() : question?.decline()));
  }

  private _clientOf(node: string): RelayClient {
    const baseUrl = node.replace(/\/+$/, '');
    const wsUrl = `${baseUrl.replace(/^http/, 'ws')}/ws`;
    const WebSocket = observed((frame) => this._events.frame(frame));
    const client = new RelayClient({ baseUrl, wsUrl, sessionEndpoint: '/api/sessions', WebSocket });
    client.on('syncPhaseChanged', ({ newPhase }) => {
      if (newPhase === SyncPhase.ACTIVE) this.question = undefined;
      this._events.changed();
    });
    client.on('tutorialStateUpdated', (state) => {
      [this.index, this.solved] = [state.stepContent?.index ?? 0, state.isShowingSolution === true];
      this._events.changed();
    });
    client.on('connectionStatusChanged', () => this._events.changed());
    client.on('clientConnected', () => this._events.changed());
    client.on('clientDisconnected', () => this._events.changed());
    client.on('controlOffered', (offer) => this._ask('The other side offers you control.', offer));
    client.on('controlRequested', (request) => this._ask('The other side asks for control.', request));
    client.on('controlDeclined', () => this._events.message('The other side declined.', true));
    client.on('error', (error) => this._events.message(error.message, true));
    return client;
  }

  private _ask(text: string, { accept, decline }: ControlOfferEvent | ControlRequestEvent): void {
    this.question = { text, accept, decline };
    this._events.changed();
  }
}
