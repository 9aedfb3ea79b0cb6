/** The status bar's text for a session, and the possible actions of each phase. Pure; `extension.ts` shows them. */
import { SyncPhase } from '@gitorial/sync';
import type { Session } from './session';

export interface Status {
  text: string;
  tooltip: string;
}

/** A command of this extension, without its prefix. */
export type Action =
  | 'createSession'
  | 'joinSession'
  | 'nextStep'
  | 'previousStep'
  | 'takeControl'
  | 'offerControl'
  | 'releaseControl'
  | 'copySessionLink'
  | 'leaveSession';

const IN_A_SESSION: readonly Action[] = ['copySessionLink', 'leaveSession'];

/** The possible actions of each phase. The `enablement` entries in package.json are the same for the command palette. */
export const POSSIBLE: Readonly<Record<SyncPhase, readonly Action[]>> = {
  [SyncPhase.DISCONNECTED]: ['createSession', 'joinSession'],
  [SyncPhase.CONNECTING]: IN_A_SESSION,
  [SyncPhase.CONNECTED_IDLE]: ['takeControl', ...IN_A_SESSION],
  [SyncPhase.PASSIVE]: ['takeControl', ...IN_A_SESSION],
  [SyncPhase.ACTIVE]: ['nextStep', 'previousStep', 'offerControl', 'releaseControl', ...IN_A_SESSION],
};

/** The status of this session, or the status without a session. */
export function statusOf(session: Session | undefined): Status {
  if (!session) return OUTSIDE;
  const { tutorial, place } = session;
  const step = `${place.index + 1}/${tutorial.steps.length}`;
  const about = `${tutorial.title}: ${tutorial.steps[place.index]?.title ?? ''}`;
  switch (session.phase) {
    case SyncPhase.DISCONNECTED:
      return OUTSIDE;
    case SyncPhase.CONNECTING:
      return session.isReconnecting
        ? { text: '$(sync~spin) Reconnecting', tooltip: 'The connection to the relay was lost. The extension reconnects.' }
        : { text: '$(sync~spin) Connecting', tooltip: 'Joining the session.' };
    case SyncPhase.CONNECTED_IDLE:
      return { text: `$(circle-outline) Nobody in control ${step}`, tooltip: `${about}\nTake control to move the steps.` };
    case SyncPhase.ACTIVE:
      return { text: `$(broadcast) In control ${step}`, tooltip: `${about}\nThe others follow your steps.` };
    case SyncPhase.PASSIVE:
      return { text: `$(eye) Following ${step}`, tooltip: `${about}\nYou follow the steps of the participant in control.` };
  }
}

const OUTSIDE: Status = { text: '$(plug) Gitorial', tooltip: 'Create or join a session to share this tutorial.' };
