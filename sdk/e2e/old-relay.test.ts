/** The same client on an old relay, without this relay's additions. */
import type { RelayClient } from '@gitorial/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OldRelay } from './support/old-relay';
import { until } from './support/process';
import { clientAt, isAt, next, step } from './support/tutorial';

let relay: OldRelay;
let extension: RelayClient;
let website: RelayClient;
beforeEach(async () => {
  relay = await OldRelay.start();
  extension = clientAt(relay.address);
  website = clientAt(relay.address);
  const { id } = await extension.createSessionAndConnect();
  await extension.pullStateFromPeer();
  await website.connectToSession(id);
  await website.pushStateToPeer();
  website.sendTutorialState(step(0));
  await isAt(extension, 0);
});
afterEach(() => relay.stop());

describe('two clients on an old relay', () => {
  it('stay on the same step', async () => {
    extension.sendTutorialState(step(1));
    await isAt(website, 1);
    expect([extension.isActive(), website.isPassive()]).toEqual([true, true]);
  });

  it('pass control by offer, request and take', async () => {
    const offered = next(website, 'controlOffered');
    extension.offerControlToPeer();
    await (await offered).accept();
    await until('the loss of control', () => extension.isPassive());
    website.sendTutorialState(step(2));
    await isAt(extension, 2);

    const requested = next(website, 'controlRequested');
    const request = extension.requestControl();
    await (await requested).accept();
    await request;
    extension.sendTutorialState(step(3));
    await isAt(website, 3);

    void website.acceptControlTransfer();
    website.sendTutorialState(step(4));
    await isAt(extension, 4);
    await until('the change of control', () => website.isActive() && extension.isPassive());
  });

  it('reconnect after a loss and get their roles again', async () => {
    const back = [next(extension, 'connected'), next(website, 'connected')];
    relay.cut();
    extension.sendTutorialState(step(5));
    expect(await Promise.all(back)).toMatchObject([{ reconnected: true, resumed: false }, { reconnected: true }]);
    await until('the previous roles', () => extension.isActive() && website.isPassive());
    extension.sendTutorialState(step(6));
    await isAt(website, 6);
  });
});
