/** Shows a session on the page. Each call reads the whole session, so nothing on the page is out of date. */
import { SyncPhase } from '@gitorial/sync';
import type { Session } from './session';
import { STEPS, TITLE } from './tutorial';

export function render(session: Session): void {
  renderStep(session);
  renderRole(session);
  renderLinks(session);
  const { notice, question } = session;
  text('notice', notice);
  show('notice', notice !== '');
  text('question-text', question?.text ?? '');
  show('question', question !== undefined);
}

function renderStep({ place, phase }: Session): void {
  const step = STEPS[place.index];
  if (!step) return;
  const mayMove = phase === SyncPhase.ACTIVE || phase === SyncPhase.DISCONNECTED;
  const code = place.showsSolution && step.solution ? step.solution : step.code;
  document.title = `${step.title} – ${TITLE}`;
  text('tutorial', TITLE);
  text('number', `Step ${place.index + 1} of ${STEPS.length}`);
  text('title', step.title);
  text('text', step.text);
  text('code', code ?? '');
  show('code-block', code !== undefined);
  text('solution', place.showsSolution ? 'Hide the solution' : 'Show the solution');
  show('solution', step.solution !== undefined);
  enable('solution', mayMove);
  enable('previous', mayMove && place.index > 0);
  enable('next', mayMove && place.index < STEPS.length - 1);
}

function renderRole(session: Session): void {
  const { phase, connection, isJoining } = session;
  const isController = phase === SyncPhase.ACTIVE;
  const mayTake = phase === SyncPhase.PASSIVE || phase === SyncPhase.CONNECTED_IDLE;
  const connected = isController || mayTake;
  text('connection', connection);
  text('role', roleOf(session));
  document.body.dataset.phase = phase;
  show('start', phase === SyncPhase.DISCONNECTED);
  enable('create', !isJoining);
  show('session', phase !== SyncPhase.DISCONNECTED);
  show('ask', mayTake && session.hasController);
  show('take', mayTake);
  show('offer', isController);
  enable('offer', session.peers > 0);
  show('release', isController);
  text('peers', connected ? `${session.peers} other ${session.peers === 1 ? 'participant' : 'participants'}` : '');
}

/** The text about the controller. */
function roleOf({ phase, hasController }: Session): string {
  if (phase === SyncPhase.DISCONNECTED) return 'You read alone.';
  if (phase === SyncPhase.CONNECTING) return 'Connecting…';
  if (phase === SyncPhase.ACTIVE) return 'You are in control.';
  return hasController ? 'Another participant is in control, you follow.' : 'Nobody is in control.';
}

function renderLinks({ id, relay }: Session): void {
  if (!id) return;
  // VS Code gives an extension the query of a link, so this link cannot have the session in its fragment.
  const members = new URLSearchParams({ session: id, relay });
  element<HTMLAnchorElement>('open-editor').href = `vscode://gitorial.gitorial-sync-example/join?${members}`;
  const page = new URL(location.href);
  page.search = new URLSearchParams({ relay }).toString();
  page.hash = `session=${id}`;
  element<HTMLAnchorElement>('open-window').href = page.href;
}

function element<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

function text(id: string, content: string): void {
  element(id).textContent = content;
}

function show(id: string, visible: boolean): void {
  element(id).hidden = !visible;
}

function enable(id: string, enabled: boolean): void {
  element<HTMLButtonElement>(id).disabled = !enabled;
}
