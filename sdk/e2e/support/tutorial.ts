/** What the tests' clients talk about. */
import { RelayClient, type RelayClientConfig, type RelayClientEvents, type TutorialSyncState } from '@gitorial/sync';
import { afterEach } from 'vitest';
import type { Address } from './cluster';
import { until } from './process';

/** A state that stands at this step. */
export function step(index: number): TutorialSyncState {
  const stepContent = { id: `step-${index}`, title: `Step ${index}`, commitHash: 'abc123', type: 'action' as const, index };
  return { tutorialId: 'tour', tutorialTitle: 'A tour', totalSteps: 100, isShowingSolution: false, stepContent };
}

const clients: RelayClient[] = [];

/** A client that is gone when its test is over. */
export function clientAt(address: Address, config: Partial<RelayClientConfig> = {}): RelayClient {
  const client = new RelayClient({ ...address, reconnectDelay: 200, ...config });
  // Tests that are about errors listen to them themselves.
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

/** Waits for an event, from now on. */
export function next<E extends keyof RelayClientEvents>(client: RelayClient, event: E): Promise<RelayClientEvents[E][0]> {
  return new Promise((resolve) => client.once(event, (...args) => resolve(args[0])));
}

/** Notes every event of one kind. */
export function record<E extends keyof RelayClientEvents>(client: RelayClient, event: E): RelayClientEvents[E][0][] {
  const seen: RelayClientEvents[E][0][] = [];
  client.on(event, (...args) => void seen.push(args[0]));
  return seen;
}
