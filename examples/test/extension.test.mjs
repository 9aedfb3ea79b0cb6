/** The built extension in a fake editor over a real relay, with a second client as the website. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { after, afterEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { activateIn } from '../support/fake-vscode.mjs';
import { relayUrl, until } from '../support/until.mjs';

const relay = relayUrl();
const folder = fileURLToPath(new URL('../vscode-extension', import.meta.url));
const sample = `${folder}/sample`;
const { RelayClient } = createRequire(`${folder}/package.json`)('@gitorial/sync');

const website = 'http://127.0.0.1:5173';
const editor = activateIn(folder, sample, { 'gitorialSync.relay': relay, 'gitorialSync.website': website });
const clients = [];

afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect();
  await editor.run('leaveSession');
  await phase('disconnected');
  assert.deepEqual(editor.errors.splice(0), []);
});
after(() => editor.extension.deactivate());

test('activation registers every command that package.json contributes', () => {
  const contributed = editor.packageJSON.contributes.commands.map(({ command }) => command);
  assert.deepEqual([...editor.commands.keys()].sort(), contributed.sort());
});

test('the website follows after it joins by the copied link', async () => {
  const client = await createAndFollow();
  await until('the first step', () => client.getLastTutorialState()?.stepContent.index === 0);
  await editor.run('nextStep');
  await until('the second step', () => client.getLastTutorialState()?.stepContent.index === 1);
  assert.equal(editor.statusItem.text, '$(broadcast) In control 2/5');
  await until('the file', () => editor.shown?.file === `${sample}/store.mjs` && editor.shown.line === 6);
  await editor.run('previousStep');
  await until('the first step again', () => client.getLastTutorialState()?.stepContent.index === 0);
});

test('the editor follows after the website takes control', async () => {
  const client = await createAndFollow();
  const state = await until('a state', () => client.getLastTutorialState());
  await client.acceptControlTransfer();
  client.sendTutorialState({ ...state, stepContent: { ...state.stepContent, index: 2 } });
  await until('the role', () => editor.statusItem.text === '$(eye) Following 3/5');
  await until('the file', () => editor.shown?.file === `${sample}/tasks.mjs` && editor.shown.line === 4);
  client.sendTutorialState({ ...state, isShowingSolution: true, stepContent: { ...state.stepContent, index: 3 } });
  await until('the solution', () => editor.shown.file === `${sample}/solutions/tasks.mjs`);
  await editor.run('showActions');
  assert.deepEqual(editor.offered, ['Take Control', 'Copy Session Link', 'Leave Session']);
  await editor.run('takeControl');
  await phase('active');
  assert.equal(editor.statusItem.text, '$(broadcast) In control 4/5');
});

test('control moves by a request, an offer, a take and a release', async () => {
  const client = await createAndFollow();
  editor.button = 'Accept';
  await client.requestControl();
  await phase('passive');
  assert.match(editor.questions.pop(), /asks for control/);
  client.offerControlToPeer();
  await phase('active');
  assert.match(editor.questions.pop(), /offered control/);
  client.once('controlOffered', (offer) => void offer.accept());
  await editor.run('offerControl');
  await until('the offer taken', () => client.isActive());
  await phase('passive');
  await editor.run('takeControl');
  await phase('active');
  await editor.run('releaseControl');
  await until('no controller', () => client.isConnectedIdle());
});

test('a declined request does not move control', async () => {
  const client = await createAndFollow();
  editor.button = 'Decline';
  await assert.rejects(client.requestControl(), { type: 'control_refused' });
  assert.equal(editor.contexts['gitorialSync.phase'], 'active');
});

test('a session is joined by a deep link, a link or an id', async () => {
  const client = newClient();
  const { id } = await client.createSessionAndConnect();
  await client.pullStateFromPeer();
  const query = `session=${id}&relay=${relay}`;
  await editor.uriHandler.handleUri({ path: '/join', query });
  await phase('passive');
  for (const typed of [
    id,
    ` ${website}/?relay=${encodeURIComponent(relay)}#session=${id}\n`,
    `vscode://gitorial.gitorial-sync-example/join?${query}`,
  ]) {
    await editor.run('leaveSession');
    await phase('disconnected');
    editor.typed = typed;
    await editor.run('joinSession');
    await phase('passive');
    assert.equal(editor.inputBox.password, true);
  }
  await editor.run('leaveSession');
  await until('the editor gone', () => client.getPeers().length === 0);
  assert.equal(editor.statusItem.text, '$(plug) Gitorial');
});

test('an invalid link or id leads to a message without the id', async () => {
  editor.typed = 'not a link';
  await editor.run('joinSession');
  assert.match(editor.errors.pop(), /neither a link nor an id/);
  await editor.uriHandler.handleUri({ path: '/join', query: 'session=11111111-2222&relay=file:///etc' });
  assert.match(editor.errors.pop(), /does not lead to a session/);
  editor.typed = '11111111-2222-4333-8444-555555555555';
  await editor.run('joinSession');
  assert.match(editor.errors.pop(), /does not exist or has ended/);
});

test('the package has the bundle and no sources', () => {
  const list = "import sys, zipfile; print('\\n'.join(zipfile.ZipFile(sys.argv[1]).namelist()))";
  const names = execFileSync('python3', ['-c', list, `${folder}/dist/gitorial-sync-example.vsix`], { encoding: 'utf8' });
  const files = names
    .trim()
    .split('\n')
    .filter((name) => name.startsWith('extension/'));
  assert.deepEqual(files.sort(), ['extension/dist/extension.js', 'extension/package.json', 'extension/readme.md']);
});

function newClient() {
  const client = new RelayClient({ baseUrl: relay, wsUrl: relay.replace(/^http/, 'ws'), sessionEndpoint: '/api/sessions' });
  clients.push(client);
  return client.on('error', () => {});
}

/** Creates a session with the editor as controller and a client as follower, which joins by the editor's copied link. */
async function createAndFollow() {
  await editor.run('createSession');
  await phase('active');
  await editor.run('copySessionLink');
  const link = new URL(editor.clipboard);
  assert.equal(link.searchParams.get('relay'), relay);
  const client = newClient();
  await client.connectToSession(new URLSearchParams(link.hash.slice(1)).get('session'));
  await client.pushStateToPeer();
  return client;
}

function phase(expected) {
  return until(`the phase ${expected}`, () => editor.contexts['gitorialSync.phase'] === expected);
}
