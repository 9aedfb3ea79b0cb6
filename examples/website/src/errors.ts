/** Errors in words that say what to do. */
import { type SyncClientError, SyncErrorType } from '@gitorial/sync';

const ADVICE: Partial<Record<SyncErrorType, string>> = {
  [SyncErrorType.INVALID_CONFIG]: 'The address of the relay must begin with http:// or https://.',
  [SyncErrorType.CONNECTION_FAILED]: 'The relay cannot be reached: start it, or correct its address.',
  [SyncErrorType.TIMEOUT]: 'There was no answer in time: try again.',
  [SyncErrorType.SESSION_NOT_FOUND]: 'This session does not exist or is over: ask for a new link, or create a session.',
  [SyncErrorType.SESSION_ENDED]: 'The session is over: create a new one to go on together.',
  [SyncErrorType.SESSION_FULL]: 'The session is full: try again when somebody has left.',
  [SyncErrorType.DISCONNECTED]: 'You left the session.',
  [SyncErrorType.CONTROL_REFUSED]: 'You were not given control: try again later.',
  [SyncErrorType.NOT_ACTIVE]: 'You do not drive: take control first.',
  [SyncErrorType.STATE_NOT_SENT]: 'Your last step was not shared: take control to go on.',
  [SyncErrorType.NOTHING_PENDING]: 'That was answered too late: control has moved on meanwhile.',
};

export function explain(error: unknown): string {
  const { type, message } = error as Partial<SyncClientError>;
  return (type && ADVICE[type]) ?? message ?? 'Something went wrong: try again.';
}
