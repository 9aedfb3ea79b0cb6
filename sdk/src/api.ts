/** The public API of the package, on every platform. */
export type { ConnectOptions, RelayClientConfig } from './client';
export { SyncClientError, type SyncErrorDetails, SyncErrorType } from './errors';
export type {
  ConnectedEvent,
  ConnectionStatus,
  ControlDeclinedEvent,
  ControlOfferEvent,
  ControlRequestEvent,
  DisconnectedEvent,
  Listener,
  RelayClientEvents,
  RoleChangedEvent,
  SyncPhaseChangeEvent,
} from './events';
export type { Socket, SocketConstructor } from './link';
export type { Role, SessionData, TutorialSyncState } from './protocol';
export type { SessionOptions } from './sessions';
export { SyncPhase } from './state';
