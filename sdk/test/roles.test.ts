import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ASK_MS, DECISION_MS } from '../src/decisions';
import { failure, FakeRelay, record, step, tasks } from './support/fake-relay';

let relay: FakeRelay;
beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
});
afterEach(() => vi.useRealTimers());

describe('a role assigned because another client chose first', () => {
  it('may be confirmed as follower, with an initial state', async () => {
    const client = await relay.connected();
    relay.socket.assign('PASSIVE', 2);
    await tasks();
    const pushing = client.pushStateToPeer();
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'PASSIVE' });
    relay.socket.assign('PASSIVE', 2);
    await pushing;
    const phases = record(client, 'syncPhaseChanged');
    await tasks();
    expect(phases).toMatchObject([{ oldPhase: 'passive', newPhase: 'passive' }]);
    client.sendTutorialState(step(1));
    expect(relay.socket.last('state_update').data).toMatchObject({ stepContent: { index: 1 } });
    expect(await failure(() => client.pushStateToPeer())).toMatchObject({ type: 'invalid_operation' });
  });

  it('may be confirmed as controller, which asks for the state', async () => {
    const client = await relay.connected();
    relay.socket.assign('ACTIVE', 2);
    const pulling = client.pullStateFromPeer();
    relay.socket.assign('ACTIVE', 2);
    await pulling;
    expect(relay.socket.last('request_sync').epoch).toBeUndefined();
    expect(await failure(() => client.pullStateFromPeer())).toMatchObject({ type: 'invalid_operation' });
  });

  it('is kept when a pull for control is refused', async () => {
    const client = await relay.connected();
    relay.socket.assign('PASSIVE', 2);
    const failing = failure(() => client.pullStateFromPeer());
    relay.socket.reject('coordinate_sync_direction', 'control_held');
    expect(await failing).toMatchObject({ type: 'control_refused', code: 'control_held' });
    expect(client.isPassive()).toBe(true);
  });

  it('may be chosen again after the controller released', async () => {
    const client = await relay.passive();
    relay.socket.deliver('release_control', {}, { clientId: 'ann' }).assign('PASSIVE', 3);
    const pushing = client.pushStateToPeer();
    relay.socket.assign('PASSIVE', 3);
    await pushing;
  });
});

describe('pullStateFromPeer', () => {
  it('settles when ACTIVE and asks the others for their state', async () => {
    const client = await relay.connected();
    const pulling = client.pullStateFromPeer();
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    relay.socket.assign('ACTIVE', 2);
    await pulling;
    expect(client.isActive()).toBe(true);
    relay.socket.last('request_sync');
  });

  it('rejects and follows when another client has control', async () => {
    const client = await relay.connected();
    const failing = failure(() => client.pullStateFromPeer());
    relay.socket.assign('PASSIVE', 1).reject('coordinate_sync_direction', 'control_held');
    expect(await failing).toMatchObject({ type: 'control_refused', code: 'control_held' });
    expect(client.isPassive()).toBe(true);
  });

  it('waits as follower while a person decides', async () => {
    const client = await relay.connected();
    const pulling = client.pullStateFromPeer();
    relay.socket.assign('PASSIVE', 1);
    await tasks();
    expect(client.isPassive()).toBe(true);
    relay.socket.assign('ACTIVE', 2);
    await pulling;
  });

  it('rejects when declined and at the time limit', async () => {
    const client = await relay.connected();
    const declined = failure(() => client.pullStateFromPeer());
    relay.socket.assign('PASSIVE', 1);
    relay.socket.deliver('decline_control', { fromClientId: client.getClientId() }, { clientId: 'ann' });
    expect(await declined).toMatchObject({ type: 'control_refused', code: 'declined' });

    const ignored = failure(() => client.requestControl());
    await vi.advanceTimersByTimeAsync(ASK_MS);
    expect(await ignored).toMatchObject({ type: 'timeout' });
  });

  it('is only possible without a role', async () => {
    const client = await relay.passive();
    expect(await failure(() => client.pullStateFromPeer())).toMatchObject({ type: 'invalid_operation' });
    expect(await failure(() => relay.client().pullStateFromPeer())).toMatchObject({ type: 'invalid_operation' });
  });
});

describe('pushStateToPeer', () => {
  it('settles when PASSIVE and allows one initial state', async () => {
    const client = await relay.connected();
    const pushing = client.pushStateToPeer();
    relay.socket.assign('PASSIVE', 2);
    await pushing;
    client.sendTutorialState(step(1));
    expect(relay.socket.last('state_update').data).toMatchObject({ stepContent: { index: 1 } });
    expect(await failure(() => client.sendTutorialState(step(2)))).toMatchObject({ type: 'not_active' });
  });

  it('rejects when the relay does not answer', async () => {
    const client = await relay.connected();
    const failing = failure(() => client.pushStateToPeer());
    await vi.advanceTimersByTimeAsync(DECISION_MS);
    expect(await failing).toMatchObject({ type: 'timeout' });
  });

  it('allows no initial state to a client that lost control', async () => {
    const client = await relay.active();
    relay.socket.assign('PASSIVE', 3);
    expect(await failure(() => client.sendTutorialState(step(2)))).toMatchObject({ type: 'not_active' });
  });
});

describe('a promise and its event', () => {
  it('come in this order, so a listener may be registered between', async () => {
    const client = await relay.connected();
    const pushing = client.pushStateToPeer();
    relay.socket.assign('PASSIVE', 2);
    await pushing;
    const phases = record(client, 'syncPhaseChanged');
    client.on('syncPhaseChanged', ({ newPhase }) => newPhase === 'passive' && client.sendTutorialState(step(3)));
    await tasks();
    expect(phases).toMatchObject([{ oldPhase: 'connected_idle', previousPhase: 'connected_idle', newPhase: 'passive' }]);
    expect(relay.socket.last('state_update').data).toMatchObject({ stepContent: { index: 3 } });
  });
});

describe('requestControl', () => {
  it('settles when control is granted', async () => {
    const client = await relay.passive();
    relay.socket.deliver('role_changed', { role: 'active' }, { clientId: 'ann', epoch: 2 });
    const asking = client.requestControl('my turn');
    expect(relay.socket.last('request_control').data).toMatchObject({ targetClientId: 'ann', reason: 'my turn' });
    relay.socket.assign('ACTIVE', 3);
    await asking;
  });

  for (const code of ['control_pending', 'control_denied', 'store_unavailable']) {
    it(`rejects when the relay refuses: ${code}`, async () => {
      const client = await relay.passive();
      const failing = failure(() => client.requestControl());
      relay.socket.reject('request_control', code);
      expect(await failing).toMatchObject({ type: 'control_refused', code });
    });
  }

  it('is declined only for the client that asked', async () => {
    const client = await relay.passive();
    const declined = record(client, 'controlDeclined');
    const failing = failure(() => client.requestControl());
    relay.socket.deliver('decline_control', { fromClientId: 'somebody else' }, { clientId: 'ann' });
    await tasks();
    expect(declined).toEqual([]);
    relay.socket.deliver('decline_control', { fromClientId: client.getClientId() }, { clientId: 'ann' });
    expect(await failing).toMatchObject({ code: 'declined' });
    await tasks();
    expect(declined).toEqual([{ clientId: 'ann' }]);
  });

  it('is not possible for the controller', async () => {
    const client = await relay.active();
    expect(await failure(() => client.requestControl())).toMatchObject({ type: 'invalid_operation' });
  });
});

describe('a request of another client', () => {
  it('can be accepted', async () => {
    const client = await relay.active();
    client.on('controlRequested', (event) => void event.accept());
    relay.socket.deliver('request_control', { reason: 'please' }, { clientId: 'ann' });
    await tasks();
    expect(relay.socket.last('accept_control')).toMatchObject({ epoch: 2, data: { fromClientId: 'ann' } });
    relay.socket.assign('PASSIVE', 3);
    expect(client.isPassive()).toBe(true);
  });

  it('can be declined', async () => {
    const client = await relay.active();
    client.on('controlRequested', (event) => event.decline());
    relay.socket.deliver('request_control', {}, { clientId: 'ann' });
    await tasks();
    expect(relay.socket.last('decline_control').data).toMatchObject({ fromClientId: 'ann' });
  });

  it('is answered oldest first by calls without a client id', async () => {
    const client = await relay.active();
    relay.socket.deliver('request_control', {}, { clientId: 'ann' }).deliver('request_control', {}, { clientId: 'bob' });
    client.declineControl();
    expect(relay.socket.last('decline_control').data).toMatchObject({ fromClientId: 'ann' });
    void client.acceptControlTransfer();
    expect(relay.socket.last('accept_control').data).toMatchObject({ fromClientId: 'bob' });
  });

  it('ends by an answer, a transfer of control or a leave', async () => {
    const client = await relay.active();
    const requests = record(client, 'controlRequested');
    const nothing = { type: 'nothing_pending' };
    relay.socket.deliver('client_connected', undefined, { clientId: 'ann' });
    relay.socket.deliver('request_control', {}, { clientId: 'ann' });
    await tasks();
    requests[0]!.decline();
    expect(await failure(() => requests[0]!.accept())).toMatchObject(nothing);
    relay.socket.deliver('request_control', {}, { clientId: 'ann' }).deliver('client_disconnected', {}, { clientId: 'ann' });
    expect(await failure(() => client.acceptControlTransfer())).toMatchObject(nothing);
    relay.socket.deliver('request_control', {}, { clientId: 'bob' }).assign('ACTIVE', 3);
    expect(await failure(() => client.declineControl())).toMatchObject(nothing);
    await tasks();
    relay.socket.assign('PASSIVE', 4);
    expect(await failure(() => requests[2]!.accept())).toMatchObject(nothing);
  });
});

describe('an offer of another client', () => {
  const offer = (): void => void relay.socket.deliver('offer_control', { tutorialState: step(5) }, { clientId: 'ann', epoch: 2 });

  it('can be accepted', async () => {
    const client = await relay.passive();
    const offers = record(client, 'controlOffered');
    offer();
    await tasks();
    expect(offers[0]).toMatchObject({ clientId: 'ann', state: { stepContent: { index: 5 } } });
    const taking = offers[0]!.accept();
    expect(relay.socket.last('accept_control').data).toMatchObject({ fromClientId: 'ann' });
    relay.socket.assign('ACTIVE', 3);
    await taking;
  });

  it('can be declined, once', async () => {
    const client = await relay.passive();
    offer();
    client.declineControl();
    expect(relay.socket.last('decline_control').data).toMatchObject({ fromClientId: 'ann' });
    expect(await failure(() => client.declineControl())).toMatchObject({ type: 'nothing_pending' });
  });

  it('ends when control moves', async () => {
    const client = await relay.passive();
    const offers = record(client, 'controlOffered');
    offer();
    relay.socket.deliver('role_changed', { role: 'active' }, { clientId: 'bob', epoch: 3 });
    await tasks();
    expect(await failure(() => offers[0]!.accept())).toMatchObject({ type: 'nothing_pending' });
  });
});

describe('acceptControlTransfer without an offer or a request', () => {
  it('takes control and names the epoch', async () => {
    const client = await relay.passive();
    const taking = client.acceptControlTransfer();
    expect(relay.socket.last('accept_control')).toMatchObject({ epoch: 2, data: { fromClientId: '' } });
    relay.socket.assign('ACTIVE', 3);
    await taking;
  });

  it('reports a refusal as a rejection and as an event', async () => {
    const client = await relay.passive();
    const errors = record(client, 'error');
    const failing = failure(() => client.acceptControlTransfer());
    relay.socket.reject('accept_control', 'stale_epoch');
    expect(await failing).toMatchObject({ type: 'control_refused', code: 'stale_epoch' });
    await tasks();
    expect(errors).toMatchObject([{ type: 'control_refused', code: 'stale_epoch' }]);
    void client.acceptControlTransfer();
    relay.socket.reject('accept_control', 'stale_epoch');
    await tasks();
    expect(errors.length).toBe(2);
  });

  it('is not possible for the controller', async () => {
    const client = await relay.active();
    expect(await failure(() => client.acceptControlTransfer())).toMatchObject({ type: 'nothing_pending' });
  });
});

describe('offerControlToPeer', () => {
  it('carries the state and the receiver', async () => {
    const client = await relay.active();
    relay.socket.deliver('client_connected', undefined, { clientId: 'ann' });
    client.sendTutorialState(step(4));
    client.offerControlToPeer();
    const metadata = { fromClientId: client.getClientId(), toClientId: 'ann' };
    expect(relay.socket.last('offer_control').data).toMatchObject({ tutorialState: { stepContent: { index: 4 } }, metadata });
  });

  it('reports a refusal as an event', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    client.offerControlToPeer();
    relay.socket.reject('offer_control', 'stale_epoch');
    await tasks();
    expect(errors).toMatchObject([{ type: 'control_refused', code: 'stale_epoch' }]);
  });

  it('is possible only for the controller', async () => {
    const client = await relay.passive();
    expect(await failure(() => client.offerControlToPeer())).toMatchObject({ type: 'not_active' });
  });
});

describe('releaseControl', () => {
  it('makes the client PASSIVE at once and settles on the answer', async () => {
    const client = await relay.active();
    const releasing = client.releaseControl();
    expect(client.isPassive()).toBe(true);
    expect(await failure(() => client.sendTutorialState(step(1)))).toMatchObject({ type: 'not_active' });
    relay.socket.last('release_control');
    relay.socket.assign('PASSIVE');
    await releasing;
  });

  it('makes followers CONNECTED_IDLE', async () => {
    const client = await relay.passive();
    relay.socket.deliver('release_control', {}, { clientId: 'ann' });
    expect(client.isConnectedIdle()).toBe(true);
  });

  it('is possible only for the controller', async () => {
    const client = await relay.connected();
    expect(await failure(() => client.releaseControl())).toMatchObject({ type: 'not_active' });
  });
});
