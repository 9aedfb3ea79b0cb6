/** The whole control flow between two clients in Node.js, each on its own node. */
import type { RelayClient } from '@gitorial/sync';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Cluster } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, next, step } from './support/tutorial';

let cluster: Cluster;
beforeAll(async () => void (cluster = await Cluster.start()));
afterAll(() => cluster.stop());

let extension: RelayClient;
let website: RelayClient;
beforeEach(async () => {
  extension = clientAt(cluster.near.address);
  website = clientAt(cluster.far.address);
  const { id } = await extension.createSessionAndConnect({ tutorial: 'tour' });
  await extension.pullStateFromPeer();
  await website.connectToSession(id);
  await website.pushStateToPeer();
  website.sendTutorialState(step(0));
  await isAt(extension, 0);
});

/** The controller sends this step, and the follower gets it. */
async function moves(from: RelayClient, to: RelayClient, index: number): Promise<void> {
  from.sendTutorialState(step(index));
  await isAt(to, index);
  expect([from.isActive(), to.isPassive()]).toEqual([true, true]);
}

describe('two clients on two nodes', () => {
  it('see each other and stay on the same step', async () => {
    expect(extension.getPeers()).toEqual([website.getClientId()]);
    expect(website.getPeers()).toEqual([extension.getClientId()]);
    for (let index = 1; index <= 50; index += 1) extension.sendTutorialState(step(index));
    await isAt(website, 50);
  });

  it('pass control by an offer', async () => {
    const offered = next(website, 'controlOffered');
    extension.offerControlToPeer();
    await (await offered).accept();
    await until('the loss of control', () => extension.isPassive());
    await moves(website, extension, 1);
  });

  it('keep control in place when an offer is declined', async () => {
    const offered = next(website, 'controlOffered');
    const declined = next(extension, 'controlDeclined');
    extension.offerControlToPeer();
    (await offered).decline();
    expect(await declined).toMatchObject({ clientId: website.getClientId() });
    await moves(extension, website, 1);
  });

  it('pass control by a request that settles when granted', async () => {
    const requested = next(extension, 'controlRequested');
    const request = website.requestControl('my turn');
    const { clientId, reason, accept } = await requested;
    expect([clientId, reason]).toEqual([website.getClientId(), 'my turn']);
    await accept();
    await request;
    await moves(website, extension, 2);
  });

  it('report a declined request', async () => {
    const requested = next(extension, 'controlRequested');
    const request = website.requestControl().catch((error: unknown) => error);
    (await requested).decline();
    expect(await request).toMatchObject({ type: 'control_refused' });
    await moves(extension, website, 3);
  });

  it('pass control by a take that is not awaited, and back', async () => {
    void website.acceptControlTransfer();
    website.sendTutorialState(step(4));
    await isAt(extension, 4);
    await until('the loss of control', () => extension.isPassive());
    void extension.acceptControlTransfer();
    extension.sendTutorialState(step(5));
    await isAt(website, 5);
    await moves(extension, website, 6);
  });

  it('have one controller after two simultaneous takes', async () => {
    await extension.releaseControl();
    await until('no controller', async () => (await extension.getSession())?.activeClientId === null);
    await Promise.allSettled([extension.acceptControlTransfer(), website.acceptControlTransfer()]);
    const controller = await until('a controller', async () => (await extension.getSession())?.activeClientId);
    const [from, to] = controller === extension.getClientId() ? [extension, website] : [website, extension];
    await until('one each', () => from.isActive() && to.isPassive());
    await moves(from, to, 7);
  });

  it('have no controller after a release until one takes control', async () => {
    await extension.releaseControl();
    expect(extension.isPassive()).toBe(true);
    await website.acceptControlTransfer();
    await moves(website, extension, 8);
  });

  it('answer a controller that asks a follower for its state', async () => {
    extension.sendTutorialState(step(9));
    await isAt(website, 9);
    const answer = next(extension, 'tutorialStateUpdated');
    extension.requestTutorialState();
    expect(await answer).toMatchObject({ stepContent: { index: 9 } });
  });

  it('report the leave of a peer and the end of the session', async () => {
    const left = next(extension, 'clientDisconnected');
    const name = website.getClientId();
    website.disconnect();
    expect(await left).toBe(name);
    const error = next(extension, 'error');
    const over = next(extension, 'disconnected');
    await extension.deleteSession(extension.getCurrentSessionId()!);
    expect(await over).toMatchObject({ code: 1008, reason: 'Session deleted', willReconnect: false });
    expect(await error).toMatchObject({ type: 'session_ended' });
  });
});
