/**
 * The phases of a client and every way from one to another. Pure.
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
  /** No connection, and none is tried. */
  DISCONNECTED: 'disconnected',
  /** A connection is being made, for the first time or again. */
  CONNECTING: 'connecting',
  /** Connected, without a role. */
  CONNECTED_IDLE: 'connected_idle',
  /** Drives: its states go to all others. */
  ACTIVE: 'active',
  /** Follows. */
  PASSIVE: 'passive',
} as const;

/** One of the phases of {@link SyncPhase}. */
export type SyncPhase = (typeof SyncPhase)[keyof typeof SyncPhase];

/** Why a phase changes. */
export type Cause =
  /** `connectToSession` was called. */
  | 'connect'
  /** The relay let it in, or back in, with this role. */
  | { returned: Role }
  /** It drives from now on. */
  | 'granted'
  /** It follows from now on: it asked to, or another drives. */
  | 'followed'
  /** Whoever it followed gave control up. */
  | 'freed'
  /** It gave control up. */
  | 'released'
  /** The connection went; another is tried. */
  | 'lost'
  /** The connection went for good. */
  | 'ended';

const PHASE_OF: Readonly<Record<Role, SyncPhase>> = {
  connected: SyncPhase.CONNECTED_IDLE,
  active: SyncPhase.ACTIVE,
  passive: SyncPhase.PASSIVE,
};

const CONNECTED: readonly SyncPhase[] = Object.values(PHASE_OF);

/** Whether the client is in its session in this phase. */
export function isConnected(phase: SyncPhase): boolean {
  return CONNECTED.includes(phase);
}

/** Every cause: the phases it changes, and the one it leads to. */
const CHANGES: Readonly<Record<Exclude<Cause, object>, [from: readonly SyncPhase[], to: SyncPhase]>> = {
  connect: [[SyncPhase.DISCONNECTED], SyncPhase.CONNECTING],
  ended: [Object.values(SyncPhase), SyncPhase.DISCONNECTED],
  lost: [CONNECTED, SyncPhase.CONNECTING],
  granted: [CONNECTED, SyncPhase.ACTIVE],
  followed: [CONNECTED, SyncPhase.PASSIVE],
  released: [[SyncPhase.ACTIVE], SyncPhase.PASSIVE],
  freed: [[SyncPhase.PASSIVE], SyncPhase.CONNECTED_IDLE],
};

/** The phase that follows, the same one where a cause changes nothing. */
export function next(phase: SyncPhase, cause: Cause): SyncPhase {
  const [from, to] = typeof cause === 'object' ? [[SyncPhase.CONNECTING], PHASE_OF[cause.returned]] : CHANGES[cause];
  return from.includes(phase) ? to : phase;
}
