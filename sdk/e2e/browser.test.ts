/** The file for a `<script>` in a real Chromium, across two nodes, with an editor in Node.js on the other side. */
import type { RelayClient } from '@gitorial/sync';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isIn, launch, send, shows, Site } from './support/browser';
import { Cluster } from './support/cluster';
import { until } from './support/process';
import { clientAt, isAt, next, step } from './support/tutorial';

let browser: Browser;
let site: Site;
let cluster: Cluster;
let editor: RelayClient;
let page: Page;

beforeAll(async () => {
  browser = await launch();
  site = await Site.start();
});
afterAll(async () => {
  await browser.close();
  await site.stop();
});

/** The page is behind the balancer, which prefers the first node; the editor is on the second and is the controller. */
beforeEach(async () => {
  cluster = await Cluster.start();
  cluster.balancer.use(cluster.near, cluster.far);
  editor = clientAt(cluster.far.address);
  page = await site.open(browser, cluster.balancer.address);
  const { id } = await editor.createSessionAndConnect({ tutorial: 'tour' });
  await editor.pullStateFromPeer();
  await page.evaluate((session) => window.client.connectToSession(session), id);
  await page.evaluate(() => window.client.pushStateToPeer());
  await send(page, step(0));
  await isAt(editor, 0);
});
afterEach(async () => {
  await page.context().close();
  await cluster.stop();
});

async function takesControl(): Promise<void> {
  await page.evaluate(() => window.client.acceptControlTransfer());
  await until('the loss of control', () => editor.isPassive());
}

describe('a page in Chromium', () => {
  it('gets control by offer, request and take, and releases it', async () => {
    editor.sendTutorialState(step(1));
    await shows(page, 1);

    await page.evaluate(() => void window.client.once('controlOffered', (offer) => void offer.accept()));
    editor.offerControlToPeer();
    await isIn(page, 'active');
    await send(page, step(2));
    await isAt(editor, 2);

    await page.evaluate(() => void window.client.once('controlRequested', (request) => void request.accept()));
    await editor.requestControl('my turn');
    await isIn(page, 'passive');
    editor.sendTutorialState(step(3));
    await shows(page, 3);

    const declined = editor.isActive() && next(editor, 'controlRequested').then((request) => request.decline());
    const refused = page.evaluate(() => window.client.requestControl().catch((error: { type: string }) => error.type));
    await declined;
    expect(await refused).toBe('control_refused');

    await takesControl();
    await send(page, step(4));
    await isAt(editor, 4);

    await page.evaluate(() => window.client.releaseControl());
    await isIn(page, 'passive');
    await editor.acceptControlTransfer();
    editor.sendTutorialState(step(5));
    await shows(page, 5);
  });

  for (const end of ['kill', 'drain'] as const) {
    it(`keeps control and its states when its node is ${end}ed`, async () => {
      await takesControl();
      await send(page, step(6));
      void cluster.near[end]();
      await until('the loss', () => page.evaluate(() => window.seen.at(-1) === 'connecting'));
      await send(page, step(7));
      await isAt(editor, 7);
      await isIn(page, 'active');
      expect(editor.isPassive()).toBe(true);
      expect(cluster.balancer.at).toBe(cluster.far.port);
    });
  }

  it('detects a lost network and catches up when it is back', async () => {
    cluster.balancer.freeze();
    await page.context().setOffline(true);
    await until('the loss', () => page.evaluate(() => window.client.getConnectionStatus() === 'reconnecting'));
    editor.sendTutorialState(step(8));
    cluster.balancer.thaw();
    await page.context().setOffline(false);
    await shows(page, 8);
    await isIn(page, 'passive');
  });

  it('leaves no timer, socket or listener behind', async () => {
    await page.evaluate(() => window.client.disconnect());
    await until('the leave', () => editor.getPeers().length === 0);
    expect(await page.evaluate(() => window.client.getConnectionStatus())).toBe('disconnected');
  });
});
