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
  it('is reported and resumed with the token', async () => {
    const client = await relay.active();
    const gone = record(client, 'disconnected');
    const statuses = record(client, 'connectionStatusChanged');
    const connected = record(client, 'connected');
    relay.socket.drop(1006);
    expect(client.getCurrentSyncPhase()).toBe('connecting');
    expect(client.isConnected()).toBe(false);
    expect(client.getCurrentSessionId()).toBe('session-1');
    const socket = await relay.reconnection();
    expect(socket.url.searchParams.get('resume')).toBe('token-1');
    expect(socket.url.searchParams.get('client')).toBe(client.getClientId());
    socket.open().ack({ role: 'active', epoch: 3, resumed: true, resume: 'token-2' });
    await tasks();
    expect(gone).toMatchObject([{ code: 1006, willReconnect: true }]);
    expect(statuses).toEqual(['reconnecting', 'connected']);
    expect(connected).toMatchObject([{ reconnected: true, resumed: true }]);
    expect(client.isActive()).toBe(true);
    socket.drop();
    expect((await relay.reconnection()).url.searchParams.get('resume')).toBe('token-2');
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
    it(`with ${code} is retried ${when}`, async () => {
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
    it(`with 1008 "${reason}" is not retried`, async () => {
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

  it('is retried without limit by default', async () => {
    await relay.connected();
    relay.socket.drop();
    for (let attempt = 0; attempt < 30; attempt += 1) (await relay.reconnection()).drop();
    expect(relay.sockets.length).toBe(31);
  });

  it('is given up after maxReconnectAttempts', async () => {
    const client = await relay.connected({ maxReconnectAttempts: 3 });
    const errors = record(client, 'error');
    relay.socket.drop();
    for (let attempt = 0; attempt < 3; attempt += 1) (await relay.reconnection()).drop();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(relay.sockets.length).toBe(4);
    expect(errors).toMatchObject([{ type: 'connection_lost' }]);
  });

  it('is not retried with autoReconnect: false', async () => {
    const client = await relay.connected({ autoReconnect: false });
    const errors = record(client, 'error');
    relay.socket.drop();
    await tasks();
    expect(errors).toMatchObject([{ type: 'connection_lost' }]);
    expect(client.getCurrentSyncPhase()).toBe('disconnected');
  });

  it('is retried when an attempt hangs', async () => {
    await relay.connected({ connectionTimeout: 4_000 });
    relay.socket.drop();
    await relay.reconnection();
    await relay.reconnection();
    expect(relay.sockets.length).toBe(3);
  });

  it('that repeats after each restart is retried ever later', async () => {
    await relay.connected();
    vi.spyOn(Math, 'random').mockReturnValue(0.999);
    const began = Date.now();
    for (let restart = 0; restart < 6; restart += 1) {
      relay.socket.drop(1012);
      (await relay.reconnection()).open().ack();
      await tasks();
    }
    expect(Date.now() - began).toBeGreaterThan(30_000);
  });
});

describe('a client that reconnects', () => {
  it('as controller sends the newest state of the meantime', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(1));
    relay.socket.drop();
    client.sendTutorialState(step(2));
    client.sendTutorialState(step(3));
    (await relay.reconnection()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(3) }]);
  });

  it('as controller repeats its last state', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(1));
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(relay.socket.all('state_update')).toMatchObject([{ data: at(1) }]);
  });

  it('without its role asks for it and then sends its state', async () => {
    const client = await relay.active();
    relay.socket.drop();
    client.sendTutorialState(step(2));
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 3 });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    relay.socket.assign('ACTIVE', 4);
    expect(relay.socket.last('state_update').data).toMatchObject(at(2));
  });

  it('before its control returns keeps the newest state', async () => {
    const client = await relay.active();
    relay.socket.drop();
    client.sendTutorialState(step(3));
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 2, resumed: true });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'ACTIVE' });
    expect(client.isConnectedIdle()).toBe(true);
    client.sendTutorialState(step(4));
    await vi.advanceTimersByTimeAsync(7_000);
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.all('state_update')).toMatchObject([{ epoch: 3, data: at(4) }]);
  });

  it('repeats its last state when its control returns', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(3));
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 2, resumed: true });
    relay.socket.assign('ACTIVE', 3);
    expect(relay.socket.last('state_update').data).toMatchObject(at(3));
  });

  it('does not overwrite the state of a later controller', async () => {
    const client = await relay.active();
    client.sendTutorialState(step(3));
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 4, resumed: true });
    expect(relay.socket.sent.map(({ type }) => type)).toEqual(['protocol_handshake']);
  });

  it('follows another controller and reports its unsent state', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    relay.socket.drop();
    client.sendTutorialState(step(2));
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 3 });
    relay.socket.assign('PASSIVE').reject('coordinate_sync_direction', 'control_held');
    await tasks();
    expect(client.isPassive()).toBe(true);
    expect(errors.map((error) => error.type)).toEqual(['state_not_sent']);
  });

  it('as follower may not send an initial state again', async () => {
    const client = await relay.passive();
    relay.socket.drop();
    expect(await failure(() => client.sendTutorialState(step(1)))).toMatchObject({ type: 'not_active' });
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 3 });
    expect(relay.socket.last('coordinate_sync_direction').data).toMatchObject({ preferredDirection: 'PASSIVE' });
    relay.socket.assign('PASSIVE', 3);
    await tasks();
    expect(await failure(() => client.sendTutorialState(step(1)))).toMatchObject({ type: 'not_active' });
  });

  it('to a session without a controller asks for no role', async () => {
    const client = await relay.passive();
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'connected', epoch: 3, resumed: true });
    await tasks();
    expect(relay.socket.all('coordinate_sync_direction')).toEqual([]);
    expect(client.isConnectedIdle()).toBe(true);
  });

  it('repeats an undecided call, or settles it if decided', async () => {
    const client = await relay.passive();
    const taking = client.acceptControlTransfer();
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'passive', epoch: 2, resumed: true });
    relay.socket.last('accept_control');
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'active', epoch: 3, resumed: true });
    await taking;
    expect(relay.socket.all('accept_control')).toEqual([]);
  });

  it('drops requests from before the loss', async () => {
    const client = await relay.active();
    relay.socket.deliver('request_control', {}, { clientId: 'ann' });
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'active', epoch: 3, resumed: true });
    expect(await failure(() => client.declineControl())).toMatchObject({ type: 'nothing_pending' });
  });

  it('does not repeat a frame that was too big', async () => {
    const client = await relay.active();
    const errors = record(client, 'error');
    client.sendTutorialState(step(1));
    relay.socket.drop(1009, 'Frame too big');
    (await relay.reconnection()).open().ack({ role: 'active', epoch: 3, resumed: true });
    relay.socket.deliver('request_sync', {});
    await tasks();
    expect(relay.socket.all('state_update')).toEqual([]);
    expect(errors).toMatchObject([{ type: 'frame_too_big' }]);
  });

  it('accepts a lower epoch from the relay', async () => {
    const client = await relay.passive();
    const states = record(client, 'tutorialStateUpdated');
    relay.socket.drop();
    (await relay.reconnection()).open().ack({ role: 'passive', epoch: 1, resumed: true });
    relay.socket.deliver('state_update', step(4), { clientId: 'ann', epoch: 1 });
    await tasks();
    expect(states).toEqual([step(4)]);
  });
});

describe('a dead link', () => {
  it('is detected by a ping after a silence', async () => {
    const client = await relay.connected();
    await vi.advanceTimersByTimeAsync(SILENCE_MS);
    relay.socket.last('protocol_ping');
    relay.socket.deliver('protocol_pong');
    await vi.advanceTimersByTimeAsync(SILENCE_MS);
    expect(relay.socket.all('protocol_ping').length).toBe(2);
    const dead = relay.socket;
    await vi.advanceTimersByTimeAsync(PONG_MS);
    expect(client.getConnectionStatus()).toBe('reconnecting');
    expect(dead.closedBy).toBeDefined();
    (await relay.reconnection()).open().ack({ resumed: true });
    expect(client.isConnected()).toBe(true);
    dead.drop();
    expect(client.isConnected()).toBe(true);
  });

  it('is not probed while frames arrive', async () => {
    await relay.connected();
    for (let second = 0; second < 60; second += 1) {
      relay.socket.deliver('state_update', step(1), { clientId: 'ann' });
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect(relay.socket.all('protocol_ping')).toEqual([]);
  });

  it('is not probed on a relay without pings', async () => {
    const client = relay.client();
    void client.connectToSession('session-1');
    relay.socket.open().ack({ capabilities: ['resume'] });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(relay.socket.all('protocol_ping')).toEqual([]);
    expect(client.isConnected()).toBe(true);
  });
});
