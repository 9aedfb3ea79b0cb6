import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HANDSHAKE_MS } from '../src/link';
import { failure, FakeRelay, record, tasks } from './support/fake-relay';

let relay: FakeRelay;
beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
});
afterEach(() => vi.useRealTimers());

describe('connectToSession', () => {
  it('names the session and the client in the address, and keeps what else is there', async () => {
    const client = relay.client({ wsUrl: 'ws://relay.test/ws?team=7' });
    void client.connectToSession('session-1');
    const { pathname, searchParams } = relay.socket.url;
    expect([pathname, searchParams.get('team'), searchParams.get('session')]).toEqual(['/ws', '7', 'session-1']);
    expect(searchParams.get('client')).toBe(client.getClientId());
    expect(searchParams.has('resume')).toBe(false);
  });

  it('says the handshake first, and settles when the relay has answered it', async () => {
    const client = relay.client();
    const settled = vi.fn();
    const connecting = client.connectToSession('session-1').then(settled);
    expect(client.getCurrentSyncPhase()).toBe('connecting');
    relay.socket.open();
    expect(relay.socket.sent).toMatchObject([{ type: 'protocol_handshake', protocol_version: 1 }]);
    await tasks();
    expect(settled).not.toHaveBeenCalled();
    relay.socket.ack();
    await connecting;
    expect(client.isConnectedIdle() && client.isConnected()).toBe(true);
    expect(client.getCurrentSessionId()).toBe('session-1');
  });

  it('takes a relay that does not answer the handshake for one that does not know it', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    relay.socket.open();
    await vi.advanceTimersByTimeAsync(HANDSHAKE_MS);
    await connecting;
    expect(client.isConnectedIdle()).toBe(true);
  });

  it('goes by the answer to the handshake, not by what was said to a client without one', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    const socket = relay.socket.open();
    // The three that tell an old client that it follows.
    socket.say('accept_control', {}, { clientId: 'ann' }).assign('ACTIVE').say('confirm_transfer', {});
    socket.ack({ role: 'connected' });
    await connecting;
    expect(client.isConnectedIdle()).toBe(true);
    expect(socket.sent.map(({ type }) => type)).toEqual(['protocol_handshake']);
  });

  it('goes by the name that the relay gave it', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    relay.socket.open().ack({ clientId: 'another-name' });
    await connecting;
    expect(client.getClientId()).toBe('another-name');
  });

  for (const [reason, type] of [
    ['Session not found', 'session_not_found'],
    ['Session expired', 'session_ended'],
    ['Session deleted', 'session_ended'],
    ['Session is full', 'session_full'],
    ['Origin not allowed', 'closed_by_relay'],
    ['Protocol version not supported', 'closed_by_relay'],
  ] as const) {
    it(`rejects with ${type} when the relay says "${reason}"`, async () => {
      const client = relay.client();
      const failing = failure(() => client.connectToSession('session-1'));
      relay.socket.open().drop(1008, reason);
      expect(await failing).toMatchObject({ type, code: reason });
      expect(client.getCurrentSyncPhase()).toBe('disconnected');
    });
  }

  it('rejects at once when nobody is there', async () => {
    const client = relay.client();
    const failing = failure(() => client.connectToSession('session-1'));
    relay.socket.drop(1006);
    expect(await failing).toMatchObject({ type: 'connection_failed' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(relay.sockets.length).toBe(1);
  });

  it('tries again while a relay restarts or has too much to do', async () => {
    for (const code of [1012, 1013]) {
      const client = relay.client();
      const connecting = client.connectToSession('session-1');
      relay.socket.open().drop(code, 'later');
      (await relay.again()).open().ack();
      await connecting;
      expect(client.isConnected()).toBe(true);
    }
  });

  it('rejects when the time-out is over, whatever was tried', async () => {
    const client = relay.client({ connectionTimeout: 3_000 });
    const failing = failure(() => client.connectToSession('session-1'));
    await vi.advanceTimersByTimeAsync(3_000);
    expect(await failing).toMatchObject({ type: 'timeout' });
    expect(relay.socket.closedBy).toBe(1000);
  });

  it('obeys an AbortSignal, before and while it connects', async () => {
    const stop = new AbortController();
    const client = relay.client();
    const failing = failure(() => client.connectToSession('session-1', { signal: stop.signal }));
    stop.abort('enough');
    expect(await failing).toMatchObject({ type: 'aborted', cause: 'enough' });
    expect(client.getCurrentSyncPhase()).toBe('disconnected');
    expect(await failure(() => client.connectToSession('session-1', { signal: stop.signal }))).toMatchObject({ type: 'aborted' });
    expect(relay.sockets.length).toBe(1);
  });

  it('is not possible twice, but again after disconnect()', async () => {
    const client = await relay.connected();
    expect(await failure(() => client.connectToSession('session-2'))).toMatchObject({ type: 'invalid_operation' });
    client.disconnect();
    const again = client.connectToSession('session-2');
    relay.socket.open().ack();
    await again;
    expect(client.getCurrentSessionId()).toBe('session-2');
  });

  it('says what is wrong with an id that is none', async () => {
    const client = relay.client();
    expect(await failure(() => client.connectToSession(''))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => client.connectToSession(null as unknown as string))).toMatchObject({ type: 'invalid_config' });
  });

  it('rejects with the reason when the page may not open such a socket', async () => {
    class Forbidden {
      constructor() {
        throw new Error('an insecure socket from a secure page');
      }
    }
    const client = relay.client({ WebSocket: Forbidden as never });
    const failing = failure(() => client.connectToSession('session-1'));
    await tasks();
    expect(await failing).toMatchObject({ type: 'connection_failed', message: expect.stringContaining('insecure') as string });
  });
});

describe('the settings', () => {
  it('are refused in a sentence when they cannot work', async () => {
    expect(await failure(() => relay.client({ wsUrl: 'http://relay.test' }))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => relay.client({ wsUrl: 'relay' }))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => relay.client({ baseUrl: 'ws://relay.test' }))).toMatchObject({
      message: 'baseUrl must be a URL that begins with http:// or https://',
    });
  });
});

describe('who else is there', () => {
  it('is told after the client is connected, whoever was there before and whoever comes', async () => {
    const client = relay.client();
    const [came, went] = [record(client, 'clientConnected'), record(client, 'clientDisconnected')];
    const connecting = client.connectToSession('session-1');
    relay.socket.open().say('client_connected', undefined, { clientId: 'ann' }).ack();
    await connecting;
    expect(came).toEqual([]);
    await tasks();
    expect(came).toEqual(['ann']);
    relay.socket.say('client_connected', undefined, { clientId: 'bob' }).say('client_disconnected', {}, { clientId: 'ann' });
    await tasks();
    expect([came, went, client.getPeers()]).toEqual([['ann', 'bob'], ['ann'], ['bob']]);
  });

  it('is told of changes only, after the client itself was away', async () => {
    const client = await relay.connected();
    relay.socket.say('client_connected', undefined, { clientId: 'ann' }).say('client_connected', undefined, { clientId: 'bob' });
    await tasks();
    const [came, went] = [record(client, 'clientConnected'), record(client, 'clientDisconnected')];
    relay.socket.drop();
    const socket = await relay.again();
    socket.open();
    for (const clientId of ['bob', 'cid']) socket.say('client_connected', undefined, { clientId });
    socket.ack({ resumed: true });
    await tasks();
    expect([came, went]).toEqual([['cid'], ['ann']]);
  });
});
