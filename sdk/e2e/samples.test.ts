/** The published code samples, unchanged except for addresses, with each side on its own node. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { RelayClient, type SessionData } from '@gitorial/sync';
import { transform } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { Cluster, type RelayNode } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, record, step } from './support/tutorial';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const folder = here('.run/');

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start();
  await mkdir(folder, { recursive: true });
});
afterAll(async () => {
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
});

const left: RelayClient[] = [];
afterEach(() => {
  for (const client of left.splice(0)) client.disconnect();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** Runs a sample as its own program and returns the clients that it creates. */
async function run(sample: string, at: RelayNode, ...names: string[]): Promise<Record<string, RelayClient>> {
  const text = await readFile(here(`samples/${sample}.ts`), 'utf8');
  const addressed = text.replaceAll('localhost:8080', `127.0.0.1:${at.port}`);
  const { code } = await transform(`${addressed}\nexport { ${names.join(', ')} };`, { loader: 'ts', format: 'esm' });
  const file = `${folder}${sample}-${Date.now()}.mjs`;
  await writeFile(file, code);
  const found = (await import(/* @vite-ignore */ pathToFileURL(file).href)) as Record<string, RelayClient>;
  for (const value of Object.values(found)) if ('disconnect' in value) left.push(value);
  return found;
}

describe('the sample', () => {
  it('for extensions creates a session and sends its state', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    const { client, session } = (await run('extension', cluster.near, 'client', 'session')) as unknown as {
      client: RelayClient;
      session: SessionData;
    };
    expect(client.isActive()).toBe(true);
    expect(log).toHaveBeenCalledWith(`Share session: ${session.id}`);
    const peer = clientAt(cluster.far.address);
    await peer.connectToSession(session.id);
    await peer.pushStateToPeer();
    await isAt(peer, 4);
    expect(peer.getLastTutorialState()).toMatchObject({ tutorialTitle: 'React Fundamentals' });
  });

  it('for websites sees its phase and sends its initial state', async () => {
    const extension = clientAt(cluster.near.address);
    const session = await extension.createSessionAndConnect();
    await extension.pullStateFromPeer();
    const shown = vi.fn();
    vi.stubGlobal('location', { search: `?session=${session.id}` });
    vi.stubGlobal('getCurrentTutorialState', () => step(7));
    vi.stubGlobal('updateTutorialStep', shown);
    const { client } = (await run('website', cluster.far, 'client')) as { client: RelayClient };
    await isAt(extension, 7);
    expect(client.isPassive()).toBe(true);
    extension.sendTutorialState(step(8));
    await until('the step on the website', () => shown.mock.lastCall?.[0] === 8);
  });

  it('for websites survives the loss of control', async () => {
    const extension = clientAt(cluster.near.address);
    const session = await extension.createSessionAndConnect();
    await extension.pullStateFromPeer();
    vi.stubGlobal('location', { search: `?session=${session.id}` });
    vi.stubGlobal('getCurrentTutorialState', () => step(7));
    vi.stubGlobal('updateTutorialStep', () => {});
    const { client } = (await run('website', cluster.far, 'client')) as { client: RelayClient };
    await isAt(extension, 7);
    const errors = record(client, 'error');
    await client.acceptControlTransfer();
    await until('the loss of control', () => extension.isPassive());
    await extension.acceptControlTransfer();
    await until('a typed error', () => errors.length === 1);
    expect(errors[0]).toMatchObject({ type: 'listener_failed', cause: { type: 'not_active' } });
    extension.sendTutorialState(step(9));
    await isAt(client, 9);
  });

  it('for the control flow sends a state right after its take', async () => {
    const update = vi.fn();
    const addresses = [cluster.near.address, cluster.far.address];
    vi.stubGlobal('RelayClient', RelayClient);
    // Each client of the sample uses another node.
    Object.defineProperty(globalThis, 'config', { configurable: true, get: () => addresses.shift() });
    vi.stubGlobal('currentState', step(1));
    vi.stubGlobal('newState', step(2));
    vi.stubGlobal('updateUI', update);
    const clients = await run('control-flow', cluster.near, 'extension', 'website');
    const { extension, website } = clients as { extension: RelayClient; website: RelayClient };
    await isAt(extension, 2);
    expect(extension.isPassive()).toBe(true);
    expect(website.isActive()).toBe(true);
    expect(update).toHaveBeenCalledWith(step(1));
  });
});
