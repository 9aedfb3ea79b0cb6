/** What each end of a connection means: whether to come back, and how soon. Section "Close codes" of docs/protocol.md. */
import { SyncClientError, SyncErrorType } from './errors';

/** What a client does after a close: never come back, at once, after the usual wait, or after a longer one. */
export type Return = 'never' | 'at-once' | 'soon' | 'later';

/** How a connection ended. 1006 is a loss without a word. */
export interface Closed {
  code: number;
  reason: string;
}

/** What the code of a close asks of a client. Whatever is unknown is a loss like any other. */
export function whenToReturn(code: number): Return {
  switch (code) {
    case 1008:
      return 'never';
    case 1012:
      return 'at-once';
    case 1011:
    case 1013:
      return 'later';
    default:
      return 'soon';
  }
}

/** The reasons of 1008 that a program may want to tell apart. */
const REASONS: Readonly<Record<string, [SyncErrorType, string]>> = {
  'Session not found': [SyncErrorType.SESSION_NOT_FOUND, 'there is no such session: it never was, expired or was deleted'],
  'Session expired': [SyncErrorType.SESSION_ENDED, 'the session has expired: create a new one'],
  'Session deleted': [SyncErrorType.SESSION_ENDED, 'the session was deleted'],
  'Session is full': [SyncErrorType.SESSION_FULL, 'the session is full'],
};

/** The error for a connection that ended for good. */
export function closedForGood({ code, reason }: Closed): SyncClientError {
  const [type, message] =
    code === 1008
      ? (REASONS[reason] ?? [SyncErrorType.CLOSED_BY_RELAY, `the relay closed the connection: ${reason}`])
      : [SyncErrorType.CONNECTION_LOST, `the connection to the relay was lost (${code} ${reason})`];
  return new SyncClientError(type, message, { code: reason });
}
