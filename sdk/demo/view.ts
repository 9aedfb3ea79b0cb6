/** The view of a side. Every change of the side redraws all of it. */
import { type RelayClient, SyncPhase } from '../src/browser';
import type { ObservedFrame } from './frames';
import { Side, type SideEvents } from './side';
import { drawScreen } from './screen';
import { STEPS } from './tutorial';

/** The number of frames that the log keeps. */
const KEPT_FRAMES = 200;

const { CONNECTED_IDLE, ACTIVE, PASSIVE } = SyncPhase;

/** The calls of the client that have a button, and the phases in which they are possible. */
const CALLS: readonly [id: string, call: string, phases: readonly SyncPhase[], run: (client: RelayClient) => unknown][] = [
  ['pull', 'pullStateFromPeer()', [CONNECTED_IDLE], (client) => client.pullStateFromPeer()],
  ['push', 'pushStateToPeer()', [CONNECTED_IDLE], (client) => client.pushStateToPeer()],
  ['request-state', 'requestTutorialState()', [ACTIVE], (client) => client.requestTutorialState()],
  ['request-control', 'requestControl()', [CONNECTED_IDLE, PASSIVE], (client) => client.requestControl()],
  ['offer', 'offerControlToPeer()', [ACTIVE], (client) => client.offerControlToPeer()],
  ['accept', 'acceptControlTransfer()', [CONNECTED_IDLE, PASSIVE], (client) => client.acceptControlTransfer()],
  ['decline', 'declineControl()', [], (client) => client.declineControl()],
  ['release', 'releaseControl()', [ACTIVE], (client) => client.releaseControl()],
  ['get-session', 'getSession()', [CONNECTED_IDLE, ACTIVE, PASSIVE], describe],
];

async function describe(client: RelayClient): Promise<string> {
  const session = await client.getSession();
  if (!session) return 'the session has ended';
  const { clientCount, activeClientId, expiresAt } = session;
  return `${clientCount} clients, ${activeClientId ? 'one in control' : 'none in control'}, until ${expiresAt.slice(11, 16)} UTC without activity`;
}

const ROLES: Readonly<Record<SyncPhase, string>> = {
  disconnected: 'Not connected',
  connecting: 'Connecting…',
  connected_idle: 'No controller',
  active: 'In control',
  passive: 'Following',
};

/** The callbacks of the page. */
export interface PageEvents {
  /** The user asks for a connection of this side. */
  connect(): void;
}

/** One side on the page. */
export class View {
  readonly side: Side;
  readonly root: HTMLElement;

  constructor(name: Side['name'], node: string, page: PageEvents) {
    const template = document.querySelector<HTMLTemplateElement>('#side')!;
    this.root = template.content.firstElementChild!.cloneNode(true) as HTMLElement;
    this.root.dataset['testid'] = `side-${name}`;
    this.root.dataset['side'] = name;
    this.root.setAttribute('aria-label', name);
    this._part('title').textContent = name === 'website' ? 'Website' : 'Editor';
    this._input('node').value = node;
    this.side = new Side(name, this._events());
    this._wire(page);
    this.draw();
  }

  get node(): string {
    return this._input('node').value.trim();
  }

  /** Draws the current state. */
  draw(): void {
    const { side, root } = this;
    const { phase, question } = side;
    root.dataset['phase'] = phase;
    this._id('role').textContent = ROLES[phase];
    this._id('phase').textContent = phase;
    this._id('status').textContent = side.client?.getConnectionStatus() ?? 'disconnected';
    this._id('step').textContent = `${side.index + 1} / ${STEPS.length}`;
    this._id('banner').hidden = question === undefined;
    this._part('question').textContent = question?.text ?? '';
    this._input('solution').checked = side.solved;
    const why = side.isController ? '' : 'Only the side in control can move: take control first.';
    const possible = { previous: side.index > 0, next: side.index < STEPS.length - 1, solution: true };
    for (const [id, can] of Object.entries(possible)) this._allow(id, side.isController && can, why);
    for (const [id, , phases] of CALLS) {
      const answers = question !== undefined && (id === 'accept' || id === 'decline');
      this._allow(id, phases.includes(phase) || answers, `Not possible when ${phase}.`);
    }
    this._id('take').textContent = side.isController ? 'Offer control' : 'Take control';
    this._allow(
      'take',
      [CONNECTED_IDLE, ACTIVE, PASSIVE].some((one) => one === phase),
      'Start a session first.',
    );
    this._allow('disconnect', phase !== SyncPhase.DISCONNECTED, 'Not connected.');
    drawScreen(this._part('screen'), side);
  }

  /** Shows a message about the side. */
  say(text: string, bad = false): void {
    const message = this._id('message');
    message.textContent = text;
    message.classList.toggle('bad', bad);
  }

  private _events(): SideEvents {
    return {
      changed: () => this.draw(),
      frame: (frame) => this._log(frame),
      message: (text, bad) => this.say(text, bad),
    };
  }

  private _wire(page: PageEvents): void {
    const { side } = this;
    const calls = this._part('calls');
    for (const [id, call, , run] of CALLS) {
      const button = document.createElement('button');
      [button.type, button.textContent, button.dataset['testid']] = ['button', call, id];
      button.addEventListener('click', () => void side.call(call, run));
      calls.append(button);
    }
    const step = (by: number) => (): void => void side.call('sendTutorialState()', () => side.show(side.index + by, false));
    this._click('previous', step(-1));
    this._click('next', step(1));
    this._click('solution', () => void side.call('sendTutorialState()', () => side.show(side.index, !side.solved)));
    this._click(
      'take',
      () =>
        void (side.isController
          ? side.call('offerControlToPeer()', (client) => client.offerControlToPeer())
          : side.call('acceptControlTransfer()', (client) => client.acceptControlTransfer())),
    );
    this._click('banner-accept', () => void side.answer(true));
    this._click('banner-decline', () => void side.answer(false));
    this._click('connect', () => page.connect());
    this._click('disconnect', () => side.leave());
    this.root.addEventListener('keydown', (event) => {
      if (!side.isController || event.target instanceof HTMLInputElement) return;
      if (event.key === 'ArrowRight') step(1)();
      if (event.key === 'ArrowLeft') step(-1)();
    });
  }

  private _log({ sent, type, text }: ObservedFrame): void {
    const [item, fold, summary, json] = ['li', 'details', 'summary', 'pre'].map((tag) => document.createElement(tag));
    const time = new Date().toISOString().slice(11, 23);
    summary!.textContent = `${time} ${sent ? '→' : '←'} ${type}`;
    json!.textContent = text;
    fold!.append(summary!, json!);
    item!.append(fold!);
    item!.classList.toggle('sent', sent);
    const log = this._id('log');
    log.prepend(item!);
    if (log.childElementCount > KEPT_FRAMES) log.lastElementChild?.remove();
    const count = this._part('count');
    count.textContent = String(Number(count.textContent) + 1);
  }

  private _allow(id: string, possible: boolean, why: string): void {
    const control = this._id(id) as HTMLButtonElement;
    control.disabled = !possible;
    control.title = possible ? '' : why;
  }

  private _click(id: string, then: () => void): void {
    this._id(id).addEventListener('click', then);
  }

  private _input(id: string): HTMLInputElement {
    return this._id(id) as HTMLInputElement;
  }

  private _id(id: string): HTMLElement {
    return this.root.querySelector<HTMLElement>(`[data-testid="${id}"]`)!;
  }

  private _part(name: string): HTMLElement {
    return this.root.querySelector<HTMLElement>(`[data-part="${name}"]`)!;
  }
}
