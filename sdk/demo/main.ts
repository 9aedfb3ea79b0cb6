/** The page: two sides, or one side if a link opened it. */
import { here, isLocal, read, type SideName, write } from './link';
import { stateAt } from './tutorial';
import { View } from './view';

const invitation = read(location.hash);
let session = invitation?.session;

const names: SideName[] = invitation ? [invitation.side] : ['website', 'editor'];
const views = names.map((name) => new View(name, invitation?.node ?? here, { connect: () => void join(name) }));
const [first] = views as [View, ...View[]];

function id<T extends HTMLElement>(name: string): T {
  return document.querySelector<T>(`[data-testid="${name}"]`)!;
}

/** Joins one side to the session as a follower. */
async function join(name: SideName): Promise<void> {
  const view = views.find(({ side }) => side.name === name)!;
  await view.side.attempt('connectToSession()', async () => {
    session ??= await view.side.create(view.node);
    await view.side.connect(view.node, session);
    await view.side.client?.pushStateToPeer();
  });
  drawLinks();
}

/** Starts a session with one click: the website is the controller, the editor is a follower. */
async function start(): Promise<void> {
  const [website, editor] = views;
  await first.side.attempt('createSession()', async () => {
    session = await first.side.create(first.node);
    await Promise.all(views.map(({ side, node }) => side.connect(node, session!)));
    await website!.side.client!.pullStateFromPeer();
    await editor?.side.client?.pushStateToPeer();
    website!.side.client!.sendTutorialState(stateAt(website!.side.index, website!.side.solved));
  });
  drawLinks();
}

function drawLinks(): void {
  const other: SideName = invitation?.side === 'editor' ? 'website' : 'editor';
  const link = session === undefined ? '' : write({ session, side: other, node: first.node });
  const open = id<HTMLAnchorElement>('open-other');
  open.textContent = `Open the ${other} in a new tab`;
  open.href = link;
  open.hidden = id('copy-link').hidden = session === undefined;
  id('start').textContent = session === undefined ? 'Start a session' : 'Start another session';
  id('start').classList.toggle('primary', session === undefined);
  id('start').hidden = invitation !== undefined;
  id('both').hidden = invitation === undefined;
  const hint = id('hint');
  hint.hidden = session === undefined || !isLocal(first.node);
  hint.textContent =
    'This address works only on this machine. For a phone, open this page by an address that the phone can reach.';
}

id('start').addEventListener('click', () => void start());
id('copy-link').addEventListener('click', () => {
  const link = id<HTMLAnchorElement>('open-other').href;
  const copied = navigator.clipboard?.writeText(link) ?? Promise.reject(new Error('no clipboard here'));
  copied.then(
    () => first.say('The link is in the clipboard. Anyone who has it can join the session.'),
    () => first.say(`The browser does not allow copying here. Use the link "${id('open-other').textContent}".`, true),
  );
});
id('theme').addEventListener('click', () => {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const { dataset } = document.documentElement;
  dataset['theme'] = (dataset['theme'] ?? (dark ? 'dark' : 'light')) === 'dark' ? 'light' : 'dark';
});
for (const host of document.querySelectorAll<HTMLElement>('[data-host]')) {
  host.textContent = here.replace(/^http/, host.dataset['host']!);
}

id('sides').append(...views.map(({ root }) => root));
drawLinks();
if (invitation) void join(invitation.side);
