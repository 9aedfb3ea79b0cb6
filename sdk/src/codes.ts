/** The meaning of each close code: whether to reconnect, and how soon. Section "Close codes" of docs/protocol.md. */
import { SyncClientError, SyncErrorType } from './errors';

/** When a client reconnects after a close: never, at once, after the usual wait, or after a longer one. */
export type ReconnectTiming = 'never' | 'at-once' | 'soon' | 'later';

/** How a connection ended. 1006 is a loss without a close frame. */
export interface Closed {
  code: number;
  reason: string;
}

/** The timing that a close code asks for. An unknown code is treated as a lost connection. */
export function reconnectTiming(code: number): ReconnectTiming {
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

/** The reasons of code 1008 that have their own error type. */
const REASONS: Readonly<Record<string, [SyncErrorType, string]>> = {
  'Session not found': [
    SyncErrorType.SESSION_NOT_FOUND,
    'the session does not exist: it expired, was deleted or was never created',
  ],
  'Session expired': [SyncErrorType.SESSION_ENDED, 'the session has expired: create a new one'],
  'Session deleted': [SyncErrorType.SESSION_ENDED, 'the session was deleted'],
  'Session is full': [SyncErrorType.SESSION_FULL, 'the session is full'],
};

/** The error for a connection that ended permanently. */
export function closedForGood({ code, reason }: Closed): SyncClientError {
  const [type, message] =
    code === 1008
      ? (REASONS[reason] ?? [SyncErrorType.CLOSED_BY_RELAY, `the relay closed the connection: ${reason}`])
      : [SyncErrorType.CONNECTION_LOST, `the connection to the relay was lost (${code} ${reason})`];
  return new SyncClientError(type, message, { code: reason });
}
