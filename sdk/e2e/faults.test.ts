/** A node or its network fails during a session, and the users of the session notice nothing. */
import type { RelayClient } from '@gitorial/sync';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Cluster } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, next, record, step } from './support/tutorial';

let cluster: Cluster;
let moving: RelayClient;
let staying: RelayClient;
const timings: string[] = [];

/** One client is behind the balancer, which prefers the first node; the other stays on the second. */
beforeEach(async () => {
  cluster = await Cluster.start();
  cluster.balancer.use(cluster.near, cluster.far);
  moving = clientAt(cluster.balancer.address);
  staying = clientAt(cluster.far.address);
  const { id } = await staying.createSessionAndConnect();
  await moving.connectToSession(id);
});
afterEach(() => cluster.stop());
afterAll(() => console.info(['durations:', ...timings].join('\n  ')));

async function assignRoles(active: RelayClient, passive: RelayClient): Promise<void> {
  await active.pullStateFromPeer();
  await passive.pushStateToPeer();
  active.sendTutorialState(step(1));
  await isAt(passive, 1);
}

/** Records the time from now until `done`. */
async function measure(what: string, done: Promise<unknown>): Promise<void> {
  const began = performance.now();
  await done;
  timings.push(`${what}: ${Math.round(performance.now() - began)} ms`);
}

const incidents = {
  'killed (kill -9)': () => void cluster.near.kill(),
  drained: () => void cluster.near.drain(),
} as const;

for (const [incident, strike] of Object.entries(incidents)) {
  describe(`when its node is ${incident}`, () => {
    it('the controller moves to the other node with its states', async () => {
      await assignRoles(moving, staying);
      const [phases, left] = [record(staying, 'syncPhaseChanged'), record(staying, 'clientDisconnected')];
      const back = next(moving, 'connected');
      const name = moving.getClientId();
      strike();
      const isBack = measure(`controller, node ${incident}, until it is connected`, back);
      const isSeen = measure(`controller, node ${incident}, until the follower has its next state`, isAt(staying, 2));
      await next(moving, 'disconnected');
      moving.sendTutorialState(step(2));
      await Promise.all([isBack, isSeen]);
      expect(await back).toMatchObject({ reconnected: true, resumed: true });
      expect(cluster.balancer.at).toBe(cluster.far.port);
      expect([moving.isActive(), staying.isPassive(), moving.getClientId()]).toEqual([true, true, name]);
      expect([phases, left]).toEqual([[], []]);
      moving.sendTutorialState(step(3));
      await isAt(staying, 3);
    });

    it('the follower moves to the other node and catches up', async () => {
      await assignRoles(staying, moving);
      const back = next(moving, 'connected');
      strike();
      const isSeen = measure(`follower, node ${incident}, until it has the current state`, isAt(moving, 2));
      await next(moving, 'disconnected');
      staying.sendTutorialState(step(2));
      await isSeen;
      expect(await back).toMatchObject({ reconnected: true, resumed: true });
      expect([moving.isPassive(), staying.isActive()]).toEqual([true, true]);
      expect(cluster.balancer.at).toBe(cluster.far.port);
    });

    it('control can then be passed to it and from it', async () => {
      await assignRoles(moving, staying);
      const roles = record(staying, 'roleChanged');
      strike();
      // A client that takes control must know the controller.
      const known = { clientId: moving.getClientId(), role: 'active' };
      await until('news of the controller', () => JSON.stringify(roles.at(-1)) === JSON.stringify(known));
      await staying.acceptControlTransfer();
      await until('the loss of control', () => moving.isPassive());
      await moving.acceptControlTransfer();
      moving.sendTutorialState(step(4));
      await isAt(staying, 4);
    });
  });
}

describe('when the network is lost', () => {
  it('a dead link is detected and the newest state is sent later', async () => {
    await assignRoles(moving, staying);
    cluster.balancer.freeze();
    moving.sendTutorialState(step(2));
    const gone = next(moving, 'disconnected');
    await measure('a dead link, until it is detected', gone);
    expect(await gone).toMatchObject({ code: 1006, willReconnect: true });
    moving.sendTutorialState(step(3));
    moving.sendTutorialState(step(4));
    cluster.balancer.thaw();
    await measure('the network is back, until the follower has the newest state', isAt(staying, 4));
    expect(moving.isActive()).toBe(true);
  });

  it('a connection that breaks repeatedly reconnects each time', async () => {
    await assignRoles(moving, staying);
    for (let index = 2; index < 7; index += 1) {
      const back = next(moving, 'connected');
      cluster.balancer.cut();
      moving.sendTutorialState(step(index));
      expect(await back).toMatchObject({ resumed: true });
      await isAt(staying, index);
      expect(moving.isActive()).toBe(true);
    }
  });

  it('the session continues after a temporary loss of the relay', async () => {
    await assignRoles(moving, staying);
    await cluster.near.kill();
    cluster.balancer.use();
    moving.sendTutorialState(step(5));
    await until('some attempts', () => moving.getConnectionStatus() === 'reconnecting');
    const node = await cluster.add();
    const back = next(moving, 'connected');
    cluster.balancer.use(node);
    await back;
    await isAt(staying, 5);
    expect(moving.isActive()).toBe(true);
  });
});
