import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { failure, FakeRelay, record, step, tasks } from './support/fake-relay';

let relay: FakeRelay;
beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const update = (index: number): void => void relay.socket.deliver('state_update', step(index), { clientId: 'ann', epoch: 2 });

describe('listeners', () => {
  it('are called in order of registration until removed', async () => {
    const client = await relay.passive();
    const calls: string[] = [];
    const first = (): void => void calls.push('first');
    client.on('tutorialStateUpdated', first).on('tutorialStateUpdated', () => void calls.push('second'));
    client.once('tutorialStateUpdated', () => void calls.push('once'));
    update(1);
    await tasks();
    client.off('tutorialStateUpdated', first);
    update(2);
    await tasks();
    expect(calls).toEqual(['first', 'second', 'once', 'second']);
  });

  it('get each event after the tasks of the previous one', async () => {
    const client = await relay.passive();
    const seen: unknown[] = [];
    client.on('tutorialStateUpdated', ({ stepContent }) => {
      seen.push(stepContent.index);
      void Promise.resolve().then(() => seen.push(`after ${stepContent.index}`));
    });
    update(1);
    update(2);
    await tasks();
    expect(seen).toEqual([1, 'after 1', 2, 'after 2']);
  });

  it('that throw cause an error event and affect nothing else', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    const cause = new Error('mine');
    client.on('tutorialStateUpdated', () => {
      throw cause;
    });
    const states = record(client, 'tutorialStateUpdated');
    update(1);
    update(2);
    await tasks();
    expect(states.length).toBe(2);
    expect(errors).toMatchObject([{ type: 'listener_failed', cause }, { type: 'listener_failed' }]);
    expect(client.isPassive()).toBe(true);
  });

  it('that fail on an error, or are missing, lead to the console', async () => {
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    const client = await relay.active();
    relay.socket.reject('state_update', 'stale_epoch');
    await tasks();
    expect(said).toHaveBeenCalledTimes(1);
    client.on('error', () => {
      throw new Error('again');
    });
    relay.socket.reject('state_update', 'stale_epoch');
    await tasks();
    expect(said).toHaveBeenCalledTimes(2);
  });

  it('that send a forbidden state cause a typed error event', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    client.on('syncPhaseChanged', ({ newPhase }) => newPhase === 'passive' && client.sendTutorialState(step(1)));
    relay.socket.assign('PASSIVE', 3);
    await tasks();
    expect(errors).toMatchObject([{ type: 'listener_failed', cause: { type: 'not_active' } }]);
  });
});

describe('an invalid or unknown frame', () => {
  it('is ignored', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    for (const text of ['', 'hello', '[]', '{}', 'null', '{"type":7}', '{"type":"brand_new"}', new ArrayBuffer(4)])
      relay.socket.deliverText(text);
    relay.socket.deliver('state_update', undefined).deliver('assign_sync_direction');
    await tasks();
    expect(client.isPassive()).toBe(true);
    expect(errors).toEqual([]);
  });
});

describe('every call', () => {
  it('without a session names the call to make first', async () => {
    const client = relay.client();
    const calls = [
      () => client.pullStateFromPeer(),
      () => client.pushStateToPeer(),
      () => client.requestControl(),
      () => client.acceptControlTransfer(),
      () => client.releaseControl(),
      () => client.offerControlToPeer(),
      () => client.declineControl(),
      () => client.requestTutorialState(),
      () => client.sendTutorialState(step(1)),
    ];
    for (const call of calls) {
      expect(await failure(call)).toMatchObject({
        type: 'invalid_operation',
        message: expect.stringContaining('connectToSession()') as string,
      });
    }
    expect([client.getCurrentSyncPhase(), client.getConnectionStatus()]).toEqual(['disconnected', 'disconnected']);
    expect([client.getCurrentSessionId(), client.getLastTutorialState(), client.getPeers()]).toEqual([null, null, []]);
    expect(client.getClientId()).toMatch(/^client_\w+$/);
    client.disconnect();
  });

  it('during a loss names the event to wait for', async () => {
    const client = await relay.active();
    relay.socket.drop();
    for (const call of [() => client.releaseControl(), () => client.offerControlToPeer(), () => client.pullStateFromPeer()]) {
      expect(await failure(call)).toMatchObject({
        type: 'invalid_operation',
        message: expect.stringContaining('connected event') as string,
      });
    }
  });
});
