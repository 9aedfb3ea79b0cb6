/** The demo page, used by clicks: one node serves it, and its two sides are on two nodes. */
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Browser, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launch } from './support/browser';
import { Cluster } from './support/cluster';
import { until } from './support/process';

/** The folder for the screenshots of the documents: SCREENSHOTS=../docs/images. */
const folder = process.env['SCREENSHOTS'];

let browser: Browser;
let cluster: Cluster;
let page: Page;
let website: Locator;
let editor: Locator;
const consoleMessages: string[] = [];

beforeAll(async () => {
  browser = await launch();
  cluster = await Cluster.start();
});
afterAll(async () => {
  await browser.close();
  await cluster.stop();
});

beforeEach(async () => {
  page = await open(cluster.near.address.baseUrl);
  website = page.getByTestId('side-website');
  editor = page.getByTestId('side-editor');
  await editor.getByText('Connection:').click();
  await editor.getByTestId('node').fill(cluster.far.address.baseUrl);
  await editor.getByText('Connection:').click();
  await page.getByTestId('start').click();
  await is(website, 'active');
  await is(editor, 'passive');
});

async function open(url: string, dark = false): Promise<Page> {
  const viewport = { width: 1280, height: 860 };
  const context = await browser.newContext({ viewport, colorScheme: dark ? 'dark' : 'light' });
  const opened = await context.newPage();
  opened.on('console', (message) => consoleMessages.push(message.text()));
  opened.on('pageerror', (error) => consoleMessages.push(error.message));
  await opened.goto(url);
  return opened;
}

async function is(side: Locator, phase: string): Promise<void> {
  await until(`a side to be ${phase}`, async () => (await side.getAttribute('data-phase')) === phase);
}

async function isAt(side: Locator, step: number): Promise<void> {
  await until(`step ${step}`, async () => (await side.getByTestId('step').textContent()) === `${step} / 5`);
}

async function call(side: Locator, id: string): Promise<void> {
  const button = side.getByTestId(id);
  if (!(await button.isVisible())) await side.getByText('All calls of the client').click();
  await button.click();
}

async function screenshot(name: string): Promise<void> {
  if (folder === undefined) return;
  const target = fileURLToPath(new URL(`../${folder}/`, import.meta.url));
  await mkdir(target, { recursive: true });
  await page.screenshot({ path: `${target}${name}.png` });
}

describe('the demo page', () => {
  it('keeps two sides on two nodes on the same step', async () => {
    await website.getByTestId('next').click();
    await isAt(editor, 2);
    await website.getByTestId('solution').check();
    await until('the solution', () => editor.getByTestId('solution').isChecked());
    expect(await editor.getByTestId('next').isDisabled()).toBe(true);
    expect(await editor.getByTestId('next').getAttribute('title')).toContain('take control first');
    await website.getByTestId('previous').click();
    await isAt(editor, 1);
  });

  it('moves control by take, offer, request and release', async () => {
    await editor.getByTestId('take').click();
    await is(website, 'passive');
    await editor.getByTestId('next').click();
    await isAt(website, 2);

    await call(editor, 'offer');
    await website.getByTestId('banner-accept').click();
    await is(editor, 'passive');
    await is(website, 'active');

    await call(editor, 'request-control');
    await website.getByTestId('banner-decline').click();
    await until('the refusal', async () => (await editor.getByTestId('message').textContent())?.includes('declined'));
    await call(editor, 'request-control');
    await website.getByTestId('banner-accept').click();
    await is(editor, 'active');
    await editor.getByTestId('next').click();
    await isAt(website, 3);

    await call(editor, 'release');
    await is(website, 'connected_idle');
    await call(website, 'pull');
    await is(website, 'active');
  });

  it('enables only the calls that are possible', async () => {
    const disabled = (side: Locator) =>
      side
        .locator('[data-part="calls"] button:disabled')
        .evaluateAll((all) => all.map((one) => (one as HTMLElement).dataset['testid']));
    expect(await disabled(website)).toEqual(['pull', 'push', 'request-control', 'accept', 'decline']);
    expect(await disabled(editor)).toEqual(['pull', 'push', 'request-state', 'offer', 'decline', 'release']);
  });

  it('shows the frames without the resume token', async () => {
    await editor.getByText('Frames').click();
    await editor.getByTestId('log').locator('summary', { hasText: 'protocol_ack' }).click();
    const json = await editor.getByTestId('log').locator('details[open] pre').textContent();
    expect(JSON.parse(json!)).toMatchObject({ type: 'protocol_ack', accepted: true, resume: '(secret)' });
  });

  it('works by keyboard', async () => {
    await website.getByTestId('next').focus();
    await page.keyboard.press('ArrowRight');
    await isAt(editor, 2);
    await page.keyboard.press('ArrowLeft');
    await isAt(editor, 1);
    await page.keyboard.press('Enter');
    await isAt(editor, 2);
  });

  it('opens the other side by a link with a secret fragment', async () => {
    await website.getByTestId('next').click();
    const link = await page.getByTestId('open-other').getAttribute('href');
    expect(new URL(link!).search).toBe('');
    const elsewhere = await open(link!);
    const side = elsewhere.getByTestId('side-editor');
    await is(side, 'passive');
    await isAt(side, 2);
    expect(await elsewhere.getByTestId('side-website').count()).toBe(0);
    await side.getByTestId('take').click();
    await is(website, 'passive');
    await side.getByTestId('next').click();
    await isAt(website, 3);
    await isAt(editor, 3);
  });

  it('leaves and joins again', async () => {
    await editor.getByText('Connection:').click();
    await editor.getByTestId('disconnect').click();
    await is(editor, 'disconnected');
    await website.getByTestId('next').click();
    await editor.getByTestId('connect').click();
    await is(editor, 'passive');
    await isAt(editor, 2);
  });

  it('has a light and a dark theme', async () => {
    for (let step = 2; step <= 4; step += 1) {
      await website.getByTestId('next').click();
      await isAt(editor, step);
    }
    await website.getByTestId('solution').check();
    await until('the solution', () => editor.getByTestId('solution').isChecked());
    await screenshot('demo-light');
    const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.getByTestId('theme').click();
    await screenshot('demo-dark');
    expect(await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).not.toBe(light);
  });

  it('causes no error and no violation of its policy', () => {
    expect(consoleMessages).toEqual([]);
  });
});
