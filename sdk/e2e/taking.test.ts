/** Control is taken while a state of the one that drives is under way: it arrives, and nobody gets an error. */
import type { RelayClient } from '@gitorial/sync';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, step } from './support/tutorial';

/** Milliseconds between the state and the take. */
const GAPS = [0, 1, 2, 5, 20];
/** How often it is tried at each gap. */
const REPETITIONS = 200;
/** How many sessions at once. */
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

/** What the two do, in the same tick or so. */
type Crossing = (pair: Pair) => Promise<void>;

/** The extension moves on, the website takes control a moment later, and goes on at once. */
const stateFirst =
  (gap: number): Crossing =>
  async ({ extension, website }) => {
    extension.sendTutorialState(step(1));
    await pause(gap);
    const taken = website.acceptControlTransfer();
    website.sendTutorialState(step(2));
    return taken;
  };

/** The website takes control and goes on; the extension, which cannot know, moves on. */
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
  // A state may be shown once more, as the answer to a question.
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

  it('so does one that was sent before its sender could know of the take', () => repeat(far, takeFirst));
});
