/** The built website in a real browser over a real relay: two windows share a session. */
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

test('a second window follows after it joins by the link', async () => {
  const { controller, follower } = await twoWindows();
  await controller.click('#next');
  await sees(follower, '#title', 'Keep the list in a file');
  assert.equal(await follower.isDisabled('#next'), true);
  await controller.click('#next');
  await controller.click('#next');
  await controller.click('#solution');
  await sees(follower, '#code', 'save(tasks.map');
});

test('an accepted request moves control', async () => {
  const { controller, follower } = await twoWindows();
  await follower.click('#ask');
  await sees(controller, '#question', 'asks for control');
  await controller.click('#accept');
  await sees(follower, '#role', 'You are in control');
  await sees(controller, '#role', 'Another participant is in control');
  await follower.click('#next');
  await sees(controller, '#number', 'Step 2 of 5');
});

test('control moves by an offer, a release and a take', async () => {
  const { controller, follower } = await twoWindows();
  await follower.click('#ask');
  await controller.click('#decline');
  await sees(follower, '#notice', /declined|not given control/);
  await controller.click('#offer');
  await follower.click('#accept');
  await sees(follower, '#role', 'You are in control');
  await follower.click('#release');
  await sees(follower, '#role', 'Nobody is in control');
  await sees(controller, '#role', 'Nobody is in control');
  await controller.click('#take');
  await sees(controller, '#role', 'You are in control');
  await sees(follower, '#role', 'Another participant is in control');
});

test('links, a reload and a leave handle the session in the address', async () => {
  const { controller, follower } = await twoWindows();
  const link = new URL(await controller.getAttribute('#open-editor', 'href'));
  assert.equal(`${link.protocol}//${link.host}${link.pathname}`, 'vscode://gitorial.gitorial-sync-example/join');
  assert.equal(link.searchParams.get('relay'), relay);
  assert.equal(new URL(controller.url()).hash, `#session=${link.searchParams.get('session')}`);
  assert.equal(new URL(controller.url()).search.includes('session'), false);
  await controller.click('#next');
  await follower.reload();
  await sees(follower, '#number', 'Step 2 of 5');
  await follower.click('#leave');
  await sees(follower, '#role', 'You read alone');
  assert.equal(new URL(follower.url()).hash, '');
  await sees(controller, '#peers', '0 other');
});

test('an error leads to a message', async () => {
  const page = await open(`${address}?relay=http://127.0.0.1:9`);
  await page.click('#create');
  await sees(page, '#notice', 'relay cannot be reached');
  await page.goto(`${address}?relay=${relay}#session=11111111-2222-4333-8444-555555555555`);
  await sees(page, '#notice', 'does not exist or has ended');
});

/** Opens two windows: the first creates a session and is the controller, the second joins by its link as follower. */
async function twoWindows() {
  const controller = await open(`${address}?relay=${relay}`);
  await controller.click('#create');
  await sees(controller, '#role', 'You are in control');
  const follower = await open(await controller.getAttribute('#open-window', 'href'));
  await sees(follower, '#role', 'Another participant is in control');
  await sees(controller, '#peers', '1 other');
  return { controller, follower };
}

/** Opens a page in its own window, because a browser draws only the front tab and a click waits for the drawing. */
async function open(url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  return page;
}

function sees(page, selector, words) {
  return page.locator(selector).filter({ hasText: words }).waitFor();
}
