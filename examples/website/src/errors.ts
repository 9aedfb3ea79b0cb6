/** Error messages that say what to do. */
import { type SyncClientError, SyncErrorType } from '@gitorial/sync';

const ADVICE: Partial<Record<SyncErrorType, string>> = {
  [SyncErrorType.INVALID_CONFIG]: 'The address of the relay must begin with http:// or https://.',
  [SyncErrorType.CONNECTION_FAILED]: 'The relay cannot be reached: start it, or correct its address.',
  [SyncErrorType.TIMEOUT]: 'There was no answer in time: try again.',
  [SyncErrorType.SESSION_NOT_FOUND]: 'This session does not exist or has ended: ask for a new link, or create a session.',
  [SyncErrorType.SESSION_ENDED]: 'The session has ended: create a new one to continue together.',
  [SyncErrorType.SESSION_FULL]: 'The session is full: try again after a participant has left.',
  [SyncErrorType.DISCONNECTED]: 'You left the session.',
  [SyncErrorType.CONTROL_REFUSED]: 'Control was refused: try again later.',
  [SyncErrorType.NOT_ACTIVE]: 'You are not in control: take control first.',
  [SyncErrorType.STATE_NOT_SENT]: 'Your last step was not shared: take control to continue.',
  [SyncErrorType.NOTHING_PENDING]: 'The answer was too late: control has moved already.',
};

export function explain(error: unknown): string {
  const { type, message } = error as Partial<SyncClientError>;
  return (type && ADVICE[type]) ?? message ?? 'Something went wrong: try again.';
}
