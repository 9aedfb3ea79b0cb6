/**
 * The phases of a client and every transition between them. Pure.
 *
 * ```text
 *                   connect            opened                followed
 *   DISCONNECTED ───────────► CONNECTING ──► CONNECTED_IDLE ─────────► PASSIVE
 *        ▲                     ▲   │ ▲             │  ▲      freed       │ ▲
 *        │ ended               │   │ │ lost        │  └─────────────────┘ │
 *        └── (from any)        │   │ └─ (from the  │ granted     granted  │ followed,
 *                              │   │    three)     ▼                  │   │ released
 *                              │   └─ returned ─► ACTIVE ◄────────────┘   │
 *                              │                   └──────────────────────┘
 * ```
 */
import type { Role } from './protocol';

/** The phases of a client. */
export const SyncPhase = {
  /** No connection, and no attempt to connect. */
  DISCONNECTED: 'disconnected',
  /** The client is connecting, for the first time or again. */
  CONNECTING: 'connecting',
  /** Connected, without a role. */
  CONNECTED_IDLE: 'connected_idle',
  /** The client is the controller: its states go to all others. */
  ACTIVE: 'active',
  /** The client is a follower. */
  PASSIVE: 'passive',
} as const;

/** One of the phases of {@link SyncPhase}. */
export type SyncPhase = (typeof SyncPhase)[keyof typeof SyncPhase];

/** The cause of a phase change. */
export type Cause =
  /** `connectToSession` was called. */
  | 'connect'
  /** The relay admitted the client with this role, for the first time or again. */
  | { returned: Role }
  /** The client became the controller. */
  | 'granted'
  /** The client became a follower: it asked to, or another client has control. */
  | 'followed'
  /** The controller that the client followed released control. */
  | 'freed'
  /** The client released control. */
  | 'released'
  /** The connection was lost; the client reconnects. */
  | 'lost'
  /** The connection ended permanently. */
  | 'ended';

const PHASE_OF: Readonly<Record<Role, SyncPhase>> = {
  connected: SyncPhase.CONNECTED_IDLE,
  active: SyncPhase.ACTIVE,
  passive: SyncPhase.PASSIVE,
};

const CONNECTED: readonly SyncPhase[] = Object.values(PHASE_OF);

/** Whether the client is connected to its session in this phase. */
export function isConnected(phase: SyncPhase): boolean {
  return CONNECTED.includes(phase);
}

/** Each cause, with the phases that it changes and the phase that it leads to. */
const CHANGES: Readonly<Record<Exclude<Cause, object>, [from: readonly SyncPhase[], to: SyncPhase]>> = {
  connect: [[SyncPhase.DISCONNECTED], SyncPhase.CONNECTING],
  ended: [Object.values(SyncPhase), SyncPhase.DISCONNECTED],
  lost: [CONNECTED, SyncPhase.CONNECTING],
  granted: [CONNECTED, SyncPhase.ACTIVE],
  followed: [CONNECTED, SyncPhase.PASSIVE],
  released: [[SyncPhase.ACTIVE], SyncPhase.PASSIVE],
  freed: [[SyncPhase.PASSIVE], SyncPhase.CONNECTED_IDLE],
};

/** The next phase; the same phase if the cause does not change it. */
export function next(phase: SyncPhase, cause: Cause): SyncPhase {
  const [from, to] = typeof cause === 'object' ? [[SyncPhase.CONNECTING], PHASE_OF[cause.returned]] : CHANGES[cause];
  return from.includes(phase) ? to : phase;
}
