/** The built website in a real browser, over a real relay: two windows that share a session. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { relayUrl } from '../support/until.mjs';

const relay = relayUrl();
const { chromium } = createRequire(new URL('../../sdk/package.json', import.meta.url))('playwright-core');

let server;
let address;
let browser;

before(async () => {
  const script = fileURLToPath(new URL('../website/serve.mjs', import.meta.url));
  server = spawn(process.execPath, [script], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(server.stdout, 'data');
  address = /http:\S+/.exec(String(line))[0];
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
});
after(async () => {
  await browser?.close();
  server?.kill();
});
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));

test('a second window joins by the link and follows each step', async () => {
  const { driver, follower } = await twoWindows();
  await driver.click('#next');
  await sees(follower, '#title', 'Keep the list in a file');
  assert.equal(await follower.isDisabled('#next'), true);
  await driver.click('#next');
  await driver.click('#next');
  await driver.click('#solution');
  await sees(follower, '#code', 'save(tasks.map');
});

test('control is asked for and handed over', async () => {
  const { driver, follower } = await twoWindows();
  await follower.click('#ask');
  await sees(driver, '#question', 'asks for control');
  await driver.click('#accept');
  await sees(follower, '#role', 'You drive');
  await sees(driver, '#role', 'Another participant drives');
  await follower.click('#next');
  await sees(driver, '#number', 'Step 2 of 5');
});

test('a request is declined, an offer is taken, control is released', async () => {
  const { driver, follower } = await twoWindows();
  await follower.click('#ask');
  await driver.click('#decline');
  await sees(follower, '#notice', /declined|not given control/);
  await driver.click('#offer');
  await follower.click('#accept');
  await sees(follower, '#role', 'You drive');
  await follower.click('#release');
  await sees(follower, '#role', 'Nobody drives');
  await sees(driver, '#role', 'Nobody drives');
  await driver.click('#take');
  await sees(driver, '#role', 'You drive');
  await sees(follower, '#role', 'Another participant drives');
});

test('the editor is opened by a deep link; a reload comes back; leaving forgets the session', async () => {
  const { driver, follower } = await twoWindows();
  const link = new URL(await driver.getAttribute('#open-editor', 'href'));
  assert.equal(`${link.protocol}//${link.host}${link.pathname}`, 'vscode://gitorial.gitorial-sync-example/join');
  assert.equal(link.searchParams.get('relay'), relay);
  assert.equal(new URL(driver.url()).hash, `#session=${link.searchParams.get('session')}`);
  assert.equal(new URL(driver.url()).search.includes('session'), false);
  await driver.click('#next');
  await follower.reload();
  await sees(follower, '#number', 'Step 2 of 5');
  await follower.click('#leave');
  await sees(follower, '#role', 'You read alone');
  assert.equal(new URL(follower.url()).hash, '');
  await sees(driver, '#peers', '0 other');
});

test('what goes wrong is told in words', async () => {
  const page = await open(`${address}?relay=http://127.0.0.1:9`);
  await page.click('#create');
  await sees(page, '#notice', 'relay cannot be reached');
  await page.goto(`${address}?relay=${relay}#session=11111111-2222-4333-8444-555555555555`);
  await sees(page, '#notice', 'does not exist or is over');
});

/** A window that has created a session and drives, and one that was opened by its link and follows. */
async function twoWindows() {
  const driver = await open(`${address}?relay=${relay}`);
  await driver.click('#create');
  await sees(driver, '#role', 'You drive');
  const follower = await open(await driver.getAttribute('#open-window', 'href'));
  await sees(follower, '#role', 'Another participant drives');
  await sees(driver, '#peers', '1 other');
  return { driver, follower };
}

/** A window of its own: a browser draws only the tab in front, and clicks wait for that. */
async function open(url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  return page;
}

function sees(page, selector, words) {
  return page.locator(selector).filter({ hasText: words }).waitFor();
}
