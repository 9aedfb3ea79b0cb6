/** The wire format: the envelope of every frame, and the data that users see. Section "Frames" of docs/protocol.md. */

/** The version of the protocol that this client speaks. */
export const PROTOCOL_VERSION = 1;

/** The state of a tutorial that all clients of a session share. */
export interface TutorialSyncState {
  /** The tutorial's own id. */
  tutorialId: string;
  /** The title that people see. */
  tutorialTitle: string;
  /** The number of steps. */
  totalSteps: number;
  /** Whether the solution of the step is shown. */
  isShowingSolution: boolean;
  /** The step that is shown. */
  stepContent: {
    id: string;
    title: string;
    commitHash: string;
    type: 'section' | 'action' | 'template';
    /** Its position, from 0. */
    index: number;
  };
  /** The address of the tutorial's repository. */
  repoUrl?: string;
}

/** A session as the relay's HTTP API describes it. Times are RFC 3339, UTC. */
export interface SessionData {
  /** The session's id, its only secret: every client that has it may join. Needs no escaping in a URL. */
  id: string;
  createdAt: string;
  expiresAt: string;
  lastActivity: string;
  /** The number of clients that are connected now, on all nodes of the relay. */
  clientCount: number;
  /** The id of the controller, or `null`. */
  activeClientId: string | null;
  status: 'active' | 'expired' | 'deleted';
  /** The metadata that the creator of the session gave. */
  metadata?: unknown;
}

/** A client's role in its session. */
export type Role = 'connected' | 'active' | 'passive';

/** The frame types that this client sends or understands. */
export type FrameType =
  | 'protocol_handshake'
  | 'protocol_ack'
  | 'protocol_ping'
  | 'protocol_pong'
  | 'client_connected'
  | 'client_disconnected'
  | 'coordinate_sync_direction'
  | 'assign_sync_direction'
  | 'state_update'
  | 'request_sync'
  | 'request_control'
  | 'offer_control'
  | 'accept_control'
  | 'decline_control'
  | 'confirm_transfer'
  | 'release_control'
  | 'role_changed'
  | 'rejected';

/** A received frame. Only `type` is certain; the sender chooses the content of `data`. */
export interface Frame {
  type: FrameType;
  clientId?: string;
  data?: unknown;
  epoch?: number;
}

/** The relay's answer to the handshake. */
export interface Ack extends Frame {
  accepted: boolean;
  error?: string;
  resume?: string;
  resumed?: boolean;
  role?: Role;
  capabilities?: string[];
}

/** Parses a frame; `undefined` if the text is not a frame. */
export function parse(text: unknown): Frame | undefined {
  try {
    const frame: unknown = JSON.parse(String(text));
    return typeof (frame as Frame | null)?.type === 'string' ? (frame as Frame) : undefined;
  } catch {
    return undefined;
  }
}

/** A member of a frame's `data`, if it is a string. */
export function text(frame: Frame, member: string): string | undefined {
  const value = (frame.data as Record<string, unknown> | null | undefined)?.[member];
  return typeof value === 'string' ? value : undefined;
}
