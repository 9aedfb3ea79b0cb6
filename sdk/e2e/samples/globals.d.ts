/** What the samples of the client's documentation leave to their reader. The samples themselves are its text, unchanged. */
import type * as sync from '@gitorial/sync';

declare global {
  type SyncPhaseChangeEvent = sync.SyncPhaseChangeEvent;
  type TutorialSyncState = sync.TutorialSyncState;
  const RelayClient: typeof sync.RelayClient;
  const client: sync.RelayClient;
  const config: sync.RelayClientConfig;
  const currentState: sync.TutorialSyncState;
  const newState: sync.TutorialSyncState;
  const updateUI: (state: sync.TutorialSyncState) => void;
  const updateTutorialStep: (index: number) => void;
  const getCurrentTutorialState: () => sync.TutorialSyncState;
}
