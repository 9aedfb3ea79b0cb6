import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ASK_MS } from '../src/decisions';
import { failure, FakeRelay, record, step, tasks } from './support/fake-relay';

let relay: FakeRelay;
beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
});
afterEach(() => vi.useRealTimers());

const at = (index: number): object => ({ stepContent: { index } });

describe('a state of the controller', () => {
  it('is sent at once with its epoch', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(1));
    expect(relay.socket.last('state_update')).toMatchObject({ epoch: 2, clientId: client.getClientId(), data: at(1) });
    expect(client.getLastTutorialState()).toEqual(step(1));
  });

  it('is copied when sent', async () => {
    const client = await relay.active();
    const state = step(1);
    client.sendTutorialState(state);
    state.stepContent.index = 7;
    expect(client.getLastTutorialState()).toMatchObject(at(1));
  });

  it('that JSON cannot represent is refused', async () => {
    const client = await relay.active();
    const round: { self?: unknown } = {};
    round.self = round;
    for (const state of [undefined, round]) {
      expect(await failure(() => client.sendTutorialState(state as never))).toMatchObject({ type: 'invalid_state' });
    }
  });

  it('that the relay refuses is an error event', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    client.sendTutorialState(step(1));
    relay.socket.reject('state_update', 'stale_epoch');
    await tasks();
    expect(errors).toMatchObject([{ type: 'state_not_sent', code: 'stale_epoch' }]);
  });
});

describe('a state given while control is undecided', () => {
  it('is kept, newest only, and sent when control is granted', async () => {
    const client = await relay.passive();
    void client.acceptControlTransfer();
    client.sendTutorialState(step(1));
    client.sendTutorialState(step(2));
    expect(relay.socket.all('state_update')).toEqual([]);
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(2) }]);
  });

  it('is sent once even if control is granted twice', async () => {
    const client = await relay.passive();
    void client.acceptControlTransfer();
    client.sendTutorialState(step(4));
    relay.socket.assign('ACTIVE', 3).assign('PASSIVE', 4);
    void client.acceptControlTransfer();
    relay.socket.assign('ACTIVE', 5);
    expect(relay.socket.all('state_update')).toHaveLength(1);
  });

  it('is reported when control is refused', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    void client.acceptControlTransfer();
    client.sendTutorialState(step(1));
    relay.socket.reject('accept_control', 'stale_epoch');
    await tasks();
    expect(errors.map((error) => error.type)).toEqual(['control_refused', 'state_not_sent']);
    expect(relay.socket.all('state_update')).toEqual([]);
  });

  it('is reported when the decision times out', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    const asking = failure(() => client.requestControl());
    client.sendTutorialState(step(1));
    await vi.advanceTimersByTimeAsync(ASK_MS);
    expect(await asking).toMatchObject({ type: 'timeout' });
    await tasks();
    expect(errors.map((error) => error.type)).toEqual(['state_not_sent']);
  });

  it('waits for control even if an initial state is allowed', async () => {
    const client = await relay.connected();
    const pushing = client.pushStateToPeer();
    relay.socket.assign('PASSIVE', 2);
    await pushing;
    void client.acceptControlTransfer();
    client.sendTutorialState(step(1));
    expect(relay.socket.all('state_update')).toEqual([]);
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(1) }]);
  });

  it('becomes the initial state of a follower', async () => {
    const client = await relay.connected();
    void client.pushStateToPeer();
    client.sendTutorialState(step(1));
    relay.socket.assign('PASSIVE', 2);
    expect(relay.socket.all('state_update')).toMatchObject([{ data: at(1) }]);
  });

  it('is reported when disconnect() comes first', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    void client.acceptControlTransfer();
    client.sendTutorialState(step(1));
    client.disconnect();
    await tasks();
    expect(errors.map((error) => error.type)).toEqual(['state_not_sent']);
  });
});

describe('a state of a client without control', () => {
  it('is refused with the call to make instead', async () => {
    for (const client of [await relay.connected(), await relay.passive()]) {
      const error = await failure(() => client.sendTutorialState(step(1)));
      expect(error).toMatchObject({ type: 'not_active', message: expect.stringContaining('requestControl()') as string });
    }
    expect(await failure(() => relay.client().sendTutorialState(step(1)))).toMatchObject({ type: 'invalid_operation' });
  });
});

describe('a state of another client', () => {
  it('is an event and becomes the last state', async () => {
    const client = await relay.passive();
    const states = record(client, 'tutorialStateUpdated');
    relay.socket.deliver('state_update', step(4), { clientId: 'ann', epoch: 2 });
    await tasks();
    expect(states).toEqual([step(4)]);
    expect(client.getLastTutorialState()).toEqual(step(4));
  });

  it('of an old epoch is ignored', async () => {
    const client = await relay.passive();
    const states = record(client, 'tutorialStateUpdated');
    relay.socket.deliver('role_changed', { role: 'active' }, { clientId: 'bob', epoch: 3 });
    relay.socket.deliver('state_update', step(4), { clientId: 'ann', epoch: 2 });
    await tasks();
    expect(states).toEqual([]);
  });

  it('that arrives before the admission is not lost', async () => {
    const client = relay.client();
    const states = record(client, 'tutorialStateUpdated');
    void client.connectToSession('session-1');
    relay.socket.open().deliver('state_update', step(4), { clientId: 'ann', epoch: 1 }).ack();
    await tasks();
    expect(states).toEqual([step(4)]);
  });
});

describe('a request for the state', () => {
  it('is answered with the last state, sent or received', async () => {
    const client = await relay.passive();
    relay.socket.deliver('state_update', step(4), { clientId: 'ann', epoch: 2 }).deliver('request_sync', {}, { clientId: 'bob' });
    expect(relay.socket.last('state_update').data).toMatchObject(at(4));
    expect(client.isPassive()).toBe(true);
  });

  it('is not answered by a client without a state', async () => {
    await relay.connected();
    relay.socket.deliver('request_sync', {}, { clientId: 'bob' });
    expect(relay.socket.all('state_update')).toEqual([]);
  });

  it('causes no error when answered too late', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    relay.socket.deliver('request_sync', {}, { clientId: 'bob' }).reject('state_update', 'not_active');
    await tasks();
    expect(errors).toEqual([]);
  });

  it('does not use up a kept state', async () => {
    const client = await relay.passive();
    void client.acceptControlTransfer();
    client.sendTutorialState(step(8));
    relay.socket.deliver('request_sync', {}, { clientId: 'bob' });
    expect(relay.socket.last('state_update').data).toMatchObject(at(0));
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.last('state_update').data).toMatchObject(at(8));
  });

  it('is possible only for the controller', async () => {
    const active = await relay.active();
    active.requestTutorialState();
    relay.socket.last('request_sync');
    const passive = await relay.passive();
    expect(await failure(() => passive.requestTutorialState())).toMatchObject({ type: 'not_active' });
  });
});
