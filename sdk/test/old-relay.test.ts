import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { RelayClient } from '../src/browser';
import { HANDSHAKE_MS } from '../src/link';
import { failure, FakeRelay, record, step, tasks } from './support/fake-relay';

let relay: FakeRelay;
beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
});
afterEach(() => vi.useRealTimers());

async function connected(): Promise<RelayClient> {
  const client = relay.client();
  const connecting = client.connectToSession('session-1');
  relay.socket.open();
  await vi.advanceTimersByTimeAsync(HANDSHAKE_MS);
  await connecting;
  return client;
}

async function inRole(direction: 'ACTIVE' | 'PASSIVE'): Promise<RelayClient> {
  const client = await connected();
  const coordinating = direction === 'ACTIVE' ? client.pullStateFromPeer() : client.pushStateToPeer();
  relay.socket.assign(direction);
  await coordinating;
  if (direction === 'PASSIVE') client.sendTutorialState(step(0));
  await tasks();
  return client;
}

describe('on a relay without the handshake', () => {
  it('a refusal is an assignment of the other role', async () => {
    const client = await connected();
    const failing = failure(() => client.pullStateFromPeer());
    relay.socket.assign('PASSIVE');
    expect(await failing).toMatchObject({ type: 'control_refused' });
    expect(client.isPassive()).toBe(true);
  });

  it('frames carry no epoch', async () => {
    const client = await inRole('ACTIVE');
    client.sendTutorialState(step(1));
    expect(relay.socket.last('state_update')).not.toHaveProperty('epoch');
  });

  it('the client that loses control confirms the transfer', async () => {
    const client = await inRole('ACTIVE');
    relay.socket.deliver('accept_control', { fromClientId: client.getClientId() }, { clientId: 'ann' });
    expect(client.isPassive()).toBe(true);
    expect(relay.socket.last('confirm_transfer').data).toMatchObject({ toClientId: 'ann' });
  });

  it('a take settles when the old controller confirms it', async () => {
    const client = await inRole('PASSIVE');
    relay.socket.deliver('offer_control', { tutorialState: null }, { clientId: 'ann' });
    const taking = client.acceptControlTransfer();
    expect(relay.socket.last('accept_control').data).toMatchObject({ fromClientId: 'ann' });
    relay.socket.deliver('confirm_transfer', {}, { clientId: 'ann' });
    await taking;
    expect(client.isActive()).toBe(true);
  });

  it('a grant of a request is not confirmed', async () => {
    const client = await inRole('PASSIVE');
    const asking = client.requestControl();
    relay.socket.deliver('accept_control', { fromClientId: client.getClientId() }, { clientId: 'ann' });
    await asking;
    expect(client.isActive()).toBe(true);
    expect(relay.socket.all('confirm_transfer')).toEqual([]);
  });

  it('a client follows at once after a grant or a release', async () => {
    const granting = await inRole('ACTIVE');
    relay.socket.deliver('request_control', {}, { clientId: 'ann' });
    await granting.acceptControlTransfer();
    expect(granting.isPassive()).toBe(true);
    const releasing = await inRole('ACTIVE');
    await releasing.releaseControl();
    expect(releasing.isPassive()).toBe(true);
  });

  it('a client that reconnects asks for its direction again', async () => {
    const client = await inRole('ACTIVE');
    const phases = record(client, 'syncPhaseChanged');
    relay.socket.drop();
    client.sendTutorialState(step(3));
    (await relay.reconnection()).open();
    await vi.advanceTimersByTimeAsync(HANDSHAKE_MS);
    expect(relay.socket.url.searchParams.has('resume')).toBe(false);
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    relay.socket.assign('ACTIVE');
    expect(relay.socket.last('state_update').data).toMatchObject({ stepContent: { index: 3 } });
    await tasks();
    expect(phases.map(({ newPhase }) => newPhase)).toEqual(['connecting', 'connected_idle', 'active']);
  });

  it('a late handshake answer still counts', async () => {
    const client = await connected();
    relay.socket.ack({ epoch: 5 });
    const pulling = client.pullStateFromPeer();
    relay.socket.assign('ACTIVE', 6);
    await pulling;
    client.sendTutorialState(step(1));
    expect(relay.socket.last('state_update')).toMatchObject({ epoch: 6 });
  });
});
