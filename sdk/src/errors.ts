/** The errors of this library: one class with a table of types. */

/** The types of {@link SyncClientError}. */
export const SyncErrorType = {
  /** The configuration of the client is invalid. */
  INVALID_CONFIG: 'invalid_config',
  /** The call is not allowed in this phase. */
  INVALID_OPERATION: 'invalid_operation',
  /** Only the controller may make this call. */
  NOT_ACTIVE: 'not_active',
  /** There is no request or offer to answer. */
  NOTHING_PENDING: 'nothing_pending',
  /** The state cannot be represented as JSON. */
  INVALID_STATE: 'invalid_state',
  /** The relay or the controller refused. `code` says why. */
  CONTROL_REFUSED: 'control_refused',
  /** A state that was kept until control was decided will not be sent, or the relay refused a state. */
  STATE_NOT_SENT: 'state_not_sent',
  /** The relay cannot be reached. */
  CONNECTION_FAILED: 'connection_failed',
  /** The connection is lost and the client does not reconnect. */
  CONNECTION_LOST: 'connection_lost',
  /** No answer arrived in time. */
  TIMEOUT: 'timeout',
  /** The caller's `AbortSignal` fired. */
  ABORTED: 'aborted',
  /** `disconnect()` was called before the call was decided. */
  DISCONNECTED: 'disconnected',
  /** The session does not exist. */
  SESSION_NOT_FOUND: 'session_not_found',
  /** The session expired or was deleted. */
  SESSION_ENDED: 'session_ended',
  /** The session has its maximum number of clients. */
  SESSION_FULL: 'session_full',
  /** The relay closed this connection permanently for another reason. `code` is the reason text. */
  CLOSED_BY_RELAY: 'closed_by_relay',
  /** A frame was bigger than the relay's limit. */
  FRAME_TOO_BIG: 'frame_too_big',
  /** An HTTP call was refused. `status` and `code` say more. */
  REQUEST_FAILED: 'request_failed',
  /** A listener threw. `cause` is the thrown value. */
  LISTENER_FAILED: 'listener_failed',
} as const;

/** One of the values of {@link SyncErrorType}. */
export type SyncErrorType = (typeof SyncErrorType)[keyof typeof SyncErrorType];

/** The details of an error besides its type and its message. */
export interface SyncErrorDetails {
  /** A machine-readable reason: the relay's refusal code, or the reason of its close frame. */
  code?: string;
  /** The HTTP status, for a failed request. */
  status?: number;
  /** The cause of the error. */
  cause?: unknown;
}

/** Every error that this library throws, rejects with, or gives to the `error` event. */
export class SyncClientError extends Error {
  /** The type, a stable value. */
  readonly type: SyncErrorType;
  /** A machine-readable reason, if there is one. */
  readonly code?: string;
  /** The HTTP status, for a failed request. */
  readonly status?: number;
  /** The cause of the error. */
  override readonly cause?: unknown;

  constructor(type: SyncErrorType, message: string, details: SyncErrorDetails = {}) {
    super(message);
    this.name = 'SyncClientError';
    this.type = type;
    Object.assign(this, details);
  }
}

/** Converts `value` to JSON, or throws an error that names it as `what`. */
export function toJson(value: unknown, what: string): string {
  let json: string | undefined;
  let cause: unknown;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    cause = error;
  }
  if (json !== undefined) return json;
  throw new SyncClientError(SyncErrorType.INVALID_STATE, `${what} cannot be represented as JSON`, { cause });
}
