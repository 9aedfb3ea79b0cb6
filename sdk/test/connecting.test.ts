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
  it('adds the session and the client to the address', async () => {
    const client = relay.client({ wsUrl: 'ws://relay.test/ws?team=7' });
    void client.connectToSession('session-1');
    const { pathname, searchParams } = relay.socket.url;
    expect([pathname, searchParams.get('team'), searchParams.get('session')]).toEqual(['/ws', '7', 'session-1']);
    expect(searchParams.get('client')).toBe(client.getClientId());
    expect(searchParams.has('resume')).toBe(false);
  });

  it('sends the handshake first and settles on its answer', async () => {
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

  it('treats a relay without an answer as one without the handshake', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    relay.socket.open();
    await vi.advanceTimersByTimeAsync(HANDSHAKE_MS);
    await connecting;
    expect(client.isConnectedIdle()).toBe(true);
  });

  it('ignores the old role frames before the handshake answer', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    const socket = relay.socket.open();
    // The three frames that make an old client a follower.
    socket.deliver('accept_control', {}, { clientId: 'ann' }).assign('ACTIVE').deliver('confirm_transfer', {});
    socket.ack({ role: 'connected' });
    await connecting;
    expect(client.isConnectedIdle()).toBe(true);
    expect(socket.sent.map(({ type }) => type)).toEqual(['protocol_handshake']);
  });

  it('uses the client id that the relay assigns', async () => {
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

  it('rejects at once when the relay is unreachable', async () => {
    const client = relay.client();
    const failing = failure(() => client.connectToSession('session-1'));
    relay.socket.drop(1006);
    expect(await failing).toMatchObject({ type: 'connection_failed' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(relay.sockets.length).toBe(1);
  });

  it('retries while a relay restarts or is overloaded', async () => {
    for (const code of [1012, 1013]) {
      const client = relay.client();
      const connecting = client.connectToSession('session-1');
      relay.socket.open().drop(code, 'later');
      (await relay.reconnection()).open().ack();
      await connecting;
      expect(client.isConnected()).toBe(true);
    }
  });

  it('rejects at the time-out', async () => {
    const client = relay.client({ connectionTimeout: 3_000 });
    const failing = failure(() => client.connectToSession('session-1'));
    await vi.advanceTimersByTimeAsync(3_000);
    expect(await failing).toMatchObject({ type: 'timeout' });
    expect(relay.socket.closedBy).toBe(1000);
  });

  it('obeys an AbortSignal before and during the connect', async () => {
    const stop = new AbortController();
    const client = relay.client();
    const failing = failure(() => client.connectToSession('session-1', { signal: stop.signal }));
    stop.abort('enough');
    expect(await failing).toMatchObject({ type: 'aborted', cause: 'enough' });
    expect(client.getCurrentSyncPhase()).toBe('disconnected');
    expect(await failure(() => client.connectToSession('session-1', { signal: stop.signal }))).toMatchObject({ type: 'aborted' });
    expect(relay.sockets.length).toBe(1);
  });

  it('is possible again only after disconnect()', async () => {
    const client = await relay.connected();
    expect(await failure(() => client.connectToSession('session-2'))).toMatchObject({ type: 'invalid_operation' });
    client.disconnect();
    const again = client.connectToSession('session-2');
    relay.socket.open().ack();
    await again;
    expect(client.getCurrentSessionId()).toBe('session-2');
  });

  it('rejects an invalid session id', async () => {
    const client = relay.client();
    expect(await failure(() => client.connectToSession(''))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => client.connectToSession(null as unknown as string))).toMatchObject({ type: 'invalid_config' });
  });

  it('rejects with the reason when the browser forbids the socket', async () => {
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

describe('the configuration', () => {
  it('is rejected when an address is invalid', async () => {
    expect(await failure(() => relay.client({ wsUrl: 'http://relay.test' }))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => relay.client({ wsUrl: 'relay' }))).toMatchObject({ type: 'invalid_config' });
    expect(await failure(() => relay.client({ baseUrl: 'ws://relay.test' }))).toMatchObject({
      message: 'baseUrl must be a URL that begins with http:// or https://',
    });
  });
});

describe('the peers', () => {
  it('are reported after the client is connected', async () => {
    const client = relay.client();
    const [came, went] = [record(client, 'clientConnected'), record(client, 'clientDisconnected')];
    const connecting = client.connectToSession('session-1');
    relay.socket.open().deliver('client_connected', undefined, { clientId: 'ann' }).ack();
    await connecting;
    expect(came).toEqual([]);
    await tasks();
    expect(came).toEqual(['ann']);
    relay.socket
      .deliver('client_connected', undefined, { clientId: 'bob' })
      .deliver('client_disconnected', {}, { clientId: 'ann' });
    await tasks();
    expect([came, went, client.getPeers()]).toEqual([['ann', 'bob'], ['ann'], ['bob']]);
  });

  it('are reported after a reconnect only if they changed', async () => {
    const client = await relay.connected();
    relay.socket
      .deliver('client_connected', undefined, { clientId: 'ann' })
      .deliver('client_connected', undefined, { clientId: 'bob' });
    await tasks();
    const [came, went] = [record(client, 'clientConnected'), record(client, 'clientDisconnected')];
    relay.socket.drop();
    const socket = await relay.reconnection();
    socket.open();
    for (const clientId of ['bob', 'cid']) socket.deliver('client_connected', undefined, { clientId });
    socket.ack({ resumed: true });
    await tasks();
    expect([came, went]).toEqual([['cid'], ['ann']]);
  });
});
