import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AT_ONCE_MS } from '../src/backoff';
import { PONG_MS, SILENCE_MS } from '../src/link';
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

const at = (index: number): object => ({ stepContent: { index } });

describe('a lost connection', () => {
  it('is said, and another is made with the proof of who comes back', async () => {
    const client = await relay.active();
    const gone = record(client, 'disconnected');
    const statuses = record(client, 'connectionStatusChanged');
    const connected = record(client, 'connected');
    relay.socket.drop(1006);
    expect(client.getCurrentSyncPhase()).toBe('connecting');
    expect(client.isConnected()).toBe(false);
    expect(client.getCurrentSessionId()).toBe('session-1');
    const socket = await relay.again();
    expect(socket.url.searchParams.get('resume')).toBe('token-1');
    expect(socket.url.searchParams.get('client')).toBe(client.getClientId());
    socket.open().ack({ role: 'active', epoch: 3, resumed: true, resume: 'token-2' });
    await tasks();
    expect(gone).toMatchObject([{ code: 1006, willReconnect: true }]);
    expect(statuses).toEqual(['reconnecting', 'connected']);
    expect(connected).toMatchObject([{ reconnected: true, resumed: true }]);
    expect(client.isActive()).toBe(true);
    socket.drop();
    expect((await relay.again()).url.searchParams.get('resume')).toBe('token-2');
  });

  for (const [code, when] of [
    [1000, 'soon'],
    [1001, 'soon'],
    [1005, 'soon'],
    [1006, 'soon'],
    [1009, 'soon'],
    [1011, 'later'],
    [1012, 'at once'],
    [1013, 'later'],
    [4999, 'soon'],
  ] as const) {
    it(`with ${code} is tried again ${when}`, async () => {
      const client = await relay.connected();
      client.on('error', () => {});
      const waits: number[] = [];
      for (const random of [0, 0.999]) {
        vi.spyOn(Math, 'random').mockReturnValue(random);
        await vi.advanceTimersByTimeAsync(10_000);
        const [before, lostAt] = [relay.sockets.length, Date.now()];
        relay.socket.drop(code);
        while (relay.sockets.length === before) await vi.advanceTimersByTimeAsync(1);
        waits.push(Date.now() - lostAt);
        relay.socket.open().ack();
        await tasks();
      }
      const [least, most] = waits as [number, number];
      if (when === 'at once') expect([least < 10, most <= AT_ONCE_MS]).toEqual([true, true]);
      if (when === 'soon') expect([least < 10, most > AT_ONCE_MS, most <= 1_000]).toEqual([true, true, true]);
      if (when === 'later') expect([least >= 1_000, most <= 2_000]).toEqual([true, true]);
    });
  }

  for (const [reason, type] of [
    ['Session expired', 'session_ended'],
    ['Session deleted', 'session_ended'],
    ['Evicted: the client resumed on another connection', 'closed_by_relay'],
  ] as const) {
    it(`with 1008 "${reason}" is not tried again`, async () => {
      const client = await relay.active();
      const [errors, gone] = [record(client, 'error'), record(client, 'disconnected')];
      relay.socket.drop(1008, reason);
      await vi.advanceTimersByTimeAsync(120_000);
      expect(relay.sockets.length).toBe(1);
      expect(errors).toMatchObject([{ type, code: reason }]);
      expect(gone).toMatchObject([{ code: 1008, reason, willReconnect: false }]);
      expect(client.getCurrentSyncPhase()).toBe('disconnected');
      expect(client.getCurrentSessionId()).toBe(null);
    });
  }

  it('is tried for ever by default, with ever longer waits', async () => {
    await relay.connected();
    relay.socket.drop();
    for (let attempt = 0; attempt < 30; attempt += 1) (await relay.again()).drop();
    expect(relay.sockets.length).toBe(31);
  });

  it('is given up after as many attempts as the settings say', async () => {
    const client = await relay.connected({ maxReconnectAttempts: 3 });
    const errors = record(client, 'error');
    relay.socket.drop();
    for (let attempt = 0; attempt < 3; attempt += 1) (await relay.again()).drop();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(relay.sockets.length).toBe(4);
    expect(errors).toMatchObject([{ type: 'connection_lost' }]);
  });

  it('is not tried again if the settings say so', async () => {
    const client = await relay.connected({ autoReconnect: false });
    const errors = record(client, 'error');
    relay.socket.drop();
    await tasks();
    expect(errors).toMatchObject([{ type: 'connection_lost' }]);
    expect(client.getCurrentSyncPhase()).toBe('disconnected');
  });

  it('of an attempt that hangs is the end of that attempt', async () => {
    await relay.connected({ connectionTimeout: 4_000 });
    relay.socket.drop();
    await relay.again();
    await relay.again();
    expect(relay.sockets.length).toBe(3);
  });

  it('again and again at once after a restart is not a storm', async () => {
    await relay.connected();
    vi.spyOn(Math, 'random').mockReturnValue(0.999);
    const began = Date.now();
    for (let restart = 0; restart < 6; restart += 1) {
      relay.socket.drop(1012);
      (await relay.again()).open().ack();
      await tasks();
    }
    expect(Date.now() - began).toBeGreaterThan(30_000);
  });
});

describe('a client that comes back', () => {
  it('as ACTIVE sends what it was given meanwhile, the newest only', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(1));
    relay.socket.drop();
    client.sendTutorialState(step(2));
    client.sendTutorialState(step(3));
    (await relay.again()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(3) }]);
  });

  it('as ACTIVE repeats its last state, which may have been lost on the way', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(1));
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(relay.socket.all('state_update')).toMatchObject([{ data: at(1) }]);
  });

  it('without its role asks for it again, and then sends what it was given', async () => {
    const client = await relay.active();
    relay.socket.drop();
    client.sendTutorialState(step(2));
    (await relay.again()).open().ack({ role: 'connected', epoch: 3 });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    relay.socket.assign('ACTIVE', 4);
    expect(relay.socket.last('state_update').data).toMatchObject(at(2));
  });

  it('whose control is still on its way keeps what it is given until it comes', async () => {
    const client = await relay.active();
    relay.socket.drop();
    client.sendTutorialState(step(3));
    (await relay.again()).open().ack({ role: 'connected', epoch: 2, resumed: true });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    expect(client.isConnectedIdle()).toBe(true);
    client.sendTutorialState(step(4));
    await vi.advanceTimersByTimeAsync(7_000);
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(4) }]);
  });

  it('whose control is still on its way repeats its last state when it comes', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(3));
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'connected', epoch: 2, resumed: true });
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.last('state_update').data).toMatchObject(at(3));
  });

  it('to a session in which another has driven meanwhile does not overwrite its state', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(3));
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'connected', epoch: 4, resumed: true });
    expect(relay.socket.sent.map(({ type }) => type)).toEqual(['protocol_handshake']);
  });

  it('without its role, which another has now, follows and says what was not sent', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    relay.socket.drop();
    client.sendTutorialState(step(2));
    (await relay.again()).open().ack({ role: 'connected', epoch: 3 });
    relay.socket.assign('PASSIVE').reject('coordinate_sync_direction', 'control_held');
    await tasks();
    expect(client.isPassive()).toBe(true);
    expect(errors.map((error) => error.type)).toEqual(['state_not_sent']);
  });

  it('as a follower may not begin with a state again', async () => {
    const client = await relay.passive();
    relay.socket.drop();
    expect(await failure(() => client.sendTutorialState(step(1)))).toMatchObject({ type: 'not_active' });
    (await relay.again()).open().ack({ role: 'connected', epoch: 3 });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'PASSIVE' });
    relay.socket.assign('PASSIVE', 3);
    await tasks();
    expect(await failure(() => client.sendTutorialState(step(1)))).toMatchObject({ type: 'not_active' });
  });

  it('to a session in which nobody drives any more asks for nothing', async () => {
    const client = await relay.passive();
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'connected', epoch: 3, resumed: true });
    await tasks();
    expect(relay.socket.all('coordinate_sync_direction')).toEqual([]);
    expect(client.isConnectedIdle()).toBe(true);
  });

  it('asks again what was not decided, and settles if it was decided meanwhile', async () => {
    const client = await relay.passive();
    const taking = client.acceptControlTransfer();
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'passive', epoch: 2, resumed: true });
    relay.socket.last('accept_control');
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'active', epoch: 3, resumed: true });
    await taking;
    expect(relay.socket.all('accept_control')).toEqual([]);
  });

  it('leaves behind who asked for control before', async () => {
    const client = await relay.active();
    relay.socket.say('request_control', {}, { clientId: 'ann' });
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(await failure(() => client.declineControl())).toMatchObject({ type: 'nothing_pending' });
  });

  it('after a frame that was too big does not send it again', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    client.sendTutorialState(step(1));
    relay.socket.drop(1009, 'Frame too big');
    (await relay.again()).open().ack({ role: 'active', epoch: 3, resumed: true });
    relay.socket.say('request_sync', {});
    await tasks();
    expect(relay.socket.all('state_update')).toEqual([]);
    expect(errors).toMatchObject([{ type: 'frame_too_big' }]);
  });

  it('trusts what the relay counts now, should it count from lower numbers', async () => {
    const client = await relay.passive();
    const states = record(client, 'tutorialStateUpdated');
    relay.socket.drop();
    (await relay.again()).open().ack({ role: 'passive', epoch: 1, resumed: true });
    relay.socket.say('state_update', step(4), { clientId: 'ann', epoch: 1 });
    await tasks();
    expect(states).toEqual([step(4)]);
  });
});

describe('a dead link', () => {
  it('is noticed without a close: the relay is asked after a silence', async () => {
    const client = await relay.connected();
    await vi.advanceTimersByTimeAsync(SILENCE_MS);
    relay.socket.last('protocol_ping');
    relay.socket.say('protocol_pong');
    await vi.advanceTimersByTimeAsync(SILENCE_MS);
    expect(relay.socket.all('protocol_ping').length).toBe(2);
    const dead = relay.socket;
    await vi.advanceTimersByTimeAsync(PONG_MS);
    expect(client.getConnectionStatus()).toBe('reconnecting');
    expect(dead.closedBy).toBeDefined();
    (await relay.again()).open().ack({ resumed: true });
    expect(client.isConnected()).toBe(true);
    dead.drop();
    expect(client.isConnected()).toBe(true);
  });

  it('is not looked for while frames come in', async () => {
    await relay.connected();
    for (let second = 0; second < 60; second += 1) {
      relay.socket.say('state_update', step(1), { clientId: 'ann' });
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect(relay.socket.all('protocol_ping')).toEqual([]);
  });

  it('cannot be found on a relay that does not know the question', async () => {
    const client = relay.client();
    void client.connectToSession('session-1');
    relay.socket.open().ack({ capabilities: ['resume'] });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(relay.socket.all('protocol_ping')).toEqual([]);
    expect(client.isConnected()).toBe(true);
  });
});
