/** What can go wrong, as one type with a table of kinds. */

/** The kinds of {@link SyncClientError}. */
export const SyncErrorType = {
  /** The settings given to the client cannot work. */
  INVALID_CONFIG: 'invalid_config',
  /** The call is not allowed in this phase. */
  INVALID_OPERATION: 'invalid_operation',
  /** Only the client that drives may send this. */
  NOT_ACTIVE: 'not_active',
  /** There is no request or offer to answer. */
  NOTHING_PENDING: 'nothing_pending',
  /** The state is not something that JSON can carry. */
  INVALID_STATE: 'invalid_state',
  /** The relay, or the client that drives, said no. `code` says why. */
  CONTROL_REFUSED: 'control_refused',
  /** A state that was kept until control is decided will not be sent. */
  STATE_NOT_SENT: 'state_not_sent',
  /** The relay cannot be reached. */
  CONNECTION_FAILED: 'connection_failed',
  /** The connection is lost and the client does not try again. */
  CONNECTION_LOST: 'connection_lost',
  /** No answer in time. */
  TIMEOUT: 'timeout',
  /** The caller's `AbortSignal` fired. */
  ABORTED: 'aborted',
  /** `disconnect()` was called before the call was decided. */
  DISCONNECTED: 'disconnected',
  /** The session does not exist. */
  SESSION_NOT_FOUND: 'session_not_found',
  /** The session expired or was deleted. */
  SESSION_ENDED: 'session_ended',
  /** No further client fits into the session. */
  SESSION_FULL: 'session_full',
  /** The relay closed this connection for good, for another reason. `code` has its words. */
  CLOSED_BY_RELAY: 'closed_by_relay',
  /** A frame was bigger than the relay takes. */
  FRAME_TOO_BIG: 'frame_too_big',
  /** An HTTP call was refused. `status` and `code` say more. */
  REQUEST_FAILED: 'request_failed',
  /** A listener threw. `cause` is what it threw. */
  LISTENER_FAILED: 'listener_failed',
} as const;

/** One of the kinds of {@link SyncErrorType}. */
export type SyncErrorType = (typeof SyncErrorType)[keyof typeof SyncErrorType];

/** What an error carries besides its kind and its sentence. */
export interface SyncErrorDetails {
  /** A machine-readable reason: the relay's refusal code, or the words of its close frame. */
  code?: string;
  /** The HTTP status, for a failed request. */
  status?: number;
  /** What brought it about. */
  cause?: unknown;
}

/** Every error of this library, thrown, rejected with, or given to the `error` event. */
export class SyncClientError extends Error {
  /** The kind, stable. */
  readonly type: SyncErrorType;
  /** A machine-readable reason, if there is one. */
  readonly code?: string;
  /** The HTTP status, for a failed request. */
  readonly status?: number;
  /** What brought it about. */
  override readonly cause?: unknown;

  constructor(type: SyncErrorType, message: string, details: SyncErrorDetails = {}) {
    super(message);
    this.name = 'SyncClientError';
    this.type = type;
    Object.assign(this, details);
  }
}

/** `value` as JSON, or an error that names `what` it is. */
export function toJson(value: unknown, what: string): string {
  let json: string | undefined;
  let cause: unknown;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    cause = error;
  }
  if (json !== undefined) return json;
  throw new SyncClientError(SyncErrorType.INVALID_STATE, `${what} cannot be written as JSON`, { cause });
}
