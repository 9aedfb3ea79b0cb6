/** The clients of the tests and the states that they send. */
import { RelayClient, type RelayClientConfig, type RelayClientEvents, type TutorialSyncState } from '@gitorial/sync';
import { afterEach } from 'vitest';
import type { Address } from './cluster';
import { until } from './process';

/** A state at this step. */
export function step(index: number): TutorialSyncState {
  const stepContent = { id: `step-${index}`, title: `Step ${index}`, commitHash: 'abc123', type: 'action' as const, index };
  return { tutorialId: 'tour', tutorialTitle: 'A tour', totalSteps: 100, isShowingSolution: false, stepContent };
}

const clients: RelayClient[] = [];

/** A client that is disconnected after its test. */
export function clientAt(address: Address, config: Partial<RelayClientConfig> = {}): RelayClient {
  const client = new RelayClient({ ...address, reconnectDelay: 200, ...config });
  // A test about errors registers its own listener.
  client.on('error', () => {});
  clients.push(client);
  return client;
}

afterEach(() => {
  for (const client of clients.splice(0)) client.disconnect();
});

/** Waits until this client is at this step. */
export async function isAt(client: RelayClient, index: number): Promise<void> {
  await until(`step ${index}`, () => client.getLastTutorialState()?.stepContent.index === index);
}

/** Waits for the next event of this kind. */
export function next<E extends keyof RelayClientEvents>(client: RelayClient, event: E): Promise<RelayClientEvents[E][0]> {
  return new Promise((resolve) => client.once(event, (...args) => resolve(args[0])));
}

/** Records every event of one kind. */
export function record<E extends keyof RelayClientEvents>(client: RelayClient, event: E): RelayClientEvents[E][0][] {
  const seen: RelayClientEvents[E][0][] = [];
  client.on(event, (...args) => void seen.push(args[0]));
  return seen;
}
