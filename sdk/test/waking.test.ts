import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AT_ONCE_MS } from '../src/backoff';
import { HANDSHAKE_MS, URGENT_PONG_MS } from '../src/link';
import { FakeRelay, tasks } from './support/fake-relay';

/** The part of a browser's document that reports its visibility. */
class Page extends EventTarget {
  visibilityState = 'visible';
}

let relay: FakeRelay;
let page: Page;
let network: EventTarget;
const fire = (target: EventTarget, event: string): void => void target.dispatchEvent(new Event(event));

beforeEach(() => {
  vi.useFakeTimers();
  [relay, page, network] = [new FakeRelay(), new Page(), new EventTarget()];
  vi.stubGlobal('document', page);
  vi.stubGlobal('addEventListener', network.addEventListener.bind(network));
  vi.stubGlobal('removeEventListener', network.removeEventListener.bind(network));
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('a network that is back or a page that is visible again', () => {
  for (const [event, target] of [
    ['online', () => network],
    ['visibilitychange', () => page],
  ] as const) {
    it(`makes a waiting client retry at once: ${event}`, async () => {
      await relay.connected({ reconnectDelay: 30_000 });
      vi.spyOn(Math, 'random').mockReturnValueOnce(1);
      relay.socket.drop();
      await vi.advanceTimersByTimeAsync(1_000);
      expect(relay.sockets.length).toBe(1);
      fire(target(), event);
      await vi.advanceTimersByTimeAsync(AT_ONCE_MS);
      expect(relay.sockets.length).toBe(2);
    });

    it(`makes a connected client ping its link: ${event}`, async () => {
      const client = await relay.connected();
      fire(target(), event);
      relay.socket.last('protocol_ping');
      await vi.advanceTimersByTimeAsync(URGENT_PONG_MS);
      expect(client.getConnectionStatus()).toBe('reconnecting');
    });
  }

  it('keeps a link that answers', async () => {
    const client = await relay.connected();
    fire(network, 'offline');
    relay.socket.deliver('protocol_pong');
    await vi.advanceTimersByTimeAsync(URGENT_PONG_MS);
    expect(client.isConnected()).toBe(true);
  });

  it('does nothing when the page is hidden', async () => {
    await relay.connected();
    page.visibilityState = 'hidden';
    fire(page, 'visibilitychange');
    expect(relay.socket.all('protocol_ping')).toEqual([]);
  });
});

describe('a network that was lost', () => {
  it('ends the link to an old relay, which cannot be probed', async () => {
    const client = relay.client();
    const connecting = client.connectToSession('session-1');
    relay.socket.open();
    await vi.advanceTimersByTimeAsync(HANDSHAKE_MS);
    await connecting;
    fire(network, 'online');
    expect(client.isConnected()).toBe(true);
    fire(network, 'offline');
    fire(network, 'online');
    expect(client.getConnectionStatus()).toBe('reconnecting');
  });
});

describe('after disconnect()', () => {
  it('no timer and no listener is left, in any phase', async () => {
    const left = (): number => adds.mock.calls.length - removes.mock.calls.length;
    const adds = vi.spyOn(network, 'addEventListener');
    const removes = vi.spyOn(network, 'removeEventListener');
    vi.stubGlobal('addEventListener', network.addEventListener.bind(network));
    vi.stubGlobal('removeEventListener', network.removeEventListener.bind(network));
    const opening = relay.client();
    opening.connectToSession('session-1').catch(() => {});
    const asking = await relay.passive();
    asking.requestControl().catch(() => {});
    const waiting = await relay.active();
    relay.socket.drop();
    const pinging = await relay.connected();
    fire(network, 'offline');
    const ended = await relay.connected();
    ended.on('error', () => {});
    relay.socket.drop(1008, 'Session deleted');
    expect(vi.getTimerCount()).toBeGreaterThan(0);
    expect(left()).toBeGreaterThan(0);
    for (const client of [opening, asking, waiting, pinging, ended]) client.disconnect();
    await tasks();
    expect(vi.getTimerCount()).toBe(0);
    expect(left()).toBe(0);
    const sockets = relay.sockets.length;
    fire(network, 'online');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(relay.sockets.length).toBe(sockets);
  });

  it('undecided calls are rejected and late frames are ignored', async () => {
    const client = await relay.passive();
    const failing = client.requestControl().catch((error: { type: string }) => error.type);
    const socket = relay.socket;
    client.disconnect();
    expect(await failing).toBe('disconnected');
    expect(socket.closedBy).toBe(1000);
    socket.assign('ACTIVE', 9).drop();
    expect(client.getCurrentSyncPhase()).toBe('disconnected');
  });
});
