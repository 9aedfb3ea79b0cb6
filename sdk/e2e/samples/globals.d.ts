/** The names that the samples leave to their reader. The samples are the unchanged text of the client's documentation. */
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
