/** A take crosses a state of the controller: the state arrives, and no client gets an error. */
import type { RelayClient } from '@gitorial/sync';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, step } from './support/tutorial';

/** Milliseconds between the state and the take. */
const GAPS = [0, 1, 2, 5, 20];
/** The number of repetitions for each gap. */
const REPETITIONS = 200;
/** The number of concurrent sessions. */
const AT_ONCE = 10;

let cluster: Cluster;
beforeAll(async () => void (cluster = await Cluster.start()));
afterAll(() => cluster.stop());

interface Pair {
  extension: RelayClient;
  website: RelayClient;
  /** The steps that the website was shown. */
  shown: number[];
  errors: unknown[];
}

async function pair(far: boolean): Promise<Pair> {
  const extension = clientAt(cluster.near.address);
  const website = clientAt(far ? cluster.far.address : cluster.near.address);
  const { id } = await extension.createSessionAndConnect({ tutorial: 'tour' });
  await extension.pullStateFromPeer();
  await website.connectToSession(id);
  await website.pushStateToPeer();
  extension.sendTutorialState(step(0));
  await isAt(website, 0);
  const [shown, errors]: [number[], unknown[]] = [[], []];
  website.on('tutorialStateUpdated', (state) => void shown.push(state.stepContent.index));
  for (const client of [extension, website]) client.on('error', (error) => void errors.push(error));
  return { extension, website, shown, errors };
}

const pause = (ms: number) => new Promise((resolve) => (ms > 0 ? setTimeout(resolve, ms) : resolve(undefined)));

/** The crossing calls of the two clients, at almost the same time. */
type Crossing = (pair: Pair) => Promise<void>;

/** The extension sends a state; after the gap the website takes control and sends the next one. */
const stateFirst =
  (gap: number): Crossing =>
  async ({ extension, website }) => {
    extension.sendTutorialState(step(1));
    await pause(gap);
    const taken = website.acceptControlTransfer();
    website.sendTutorialState(step(2));
    return taken;
  };

/** The website takes control and sends a state; the extension, which does not know this yet, sends one, too. */
const takeFirst: Crossing = async ({ extension, website }) => {
  const taken = website.acceptControlTransfer();
  website.sendTutorialState(step(2));
  extension.sendTutorialState(step(1));
  return taken;
};

async function once(far: boolean, cross: Crossing): Promise<void> {
  const both = await pair(far);
  const { extension, website, shown, errors } = both;
  await cross(both);
  await isAt(extension, 2);
  await until('the loss of control', () => extension.isPassive() && website.isActive());
  // A state may be shown twice, as the answer to a request for the state.
  expect({ shown: shown.at(-1), errors }).toEqual({ shown: 1, errors: [] });
  extension.disconnect();
  website.disconnect();
}

async function repeat(far: boolean, cross: Crossing): Promise<void> {
  for (let done = 0; done < REPETITIONS; done += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, () => once(far, cross)));
  }
}

describe.each([
  ['one node', false],
  ['two nodes', true],
])('on %s', { timeout: 120_000 }, (_, far) => {
  it.each(GAPS)('a state sent %i ms before a take arrives before the next', (gap) => repeat(far, stateFirst(gap)));

  it('a state sent just after a take arrives before the next', () => repeat(far, takeFirst));
});
