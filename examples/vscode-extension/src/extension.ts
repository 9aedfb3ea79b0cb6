/** The extension: connects commands, links and the status bar to one session at a time. */
import * as vscode from 'vscode';
import { type Invitation, isRelay, parseInvitation, parseQuery, websiteLink } from './deepLink';
import { openTutorial, viewerOf } from './editor';
import { explain, Session } from './session';
import { type Action, POSSIBLE, statusOf } from './statusBar';

let session: Session | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const statusItem = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Left);
  statusItem.command = 'gitorialSync.showActions';
  const update = (): void => {
    Object.assign(statusItem, statusOf(session));
    void vscode.commands.executeCommand('setContext', 'gitorialSync.phase', phase());
  };
  update();
  statusItem.show();

  /** Leaves the current session, if any, and creates or joins another one. */
  const open = async (relay: string, how: (next: Session) => Promise<void>): Promise<void> => {
    const opened = await openTutorial();
    session?.leave();
    const next = new Session(opened.tutorial, relay, viewerOf(opened, update));
    session = next;
    await how(next);
  };
  const accept = ({ sessionId, relay = configuredRelay() }: Invitation): Promise<void> =>
    open(relay, (next) => next.join(sessionId));

  const commands: Record<Action | 'showActions', () => unknown> = {
    createSession: () => open(configuredRelay(), (next) => next.create()),
    joinSession: async () => {
      const invitation = await askForInvitation();
      if (invitation) await accept(invitation);
    },
    nextStep: () => session?.go(1),
    previousStep: () => session?.go(-1),
    takeControl: () => session?.takeControl(),
    offerControl: () => session?.offerControl(),
    releaseControl: () => session?.releaseControl(),
    copySessionLink,
    leaveSession: () => session?.leave(),
    showActions: () => showActions(context),
  };
  for (const [name, run] of Object.entries(commands)) {
    context.subscriptions.push(vscode.commands.registerCommand(`gitorialSync.${name}`, () => reporting(run)));
  }
  const handleUri = ({ path, query }: vscode.Uri): Promise<void> =>
    reporting(async () => {
      const invitation = path === '/join' ? parseQuery(query) : undefined;
      if (!invitation) throw new Error('This link does not lead to a session: copy it again from the website.');
      await accept(invitation);
    });
  context.subscriptions.push(statusItem, vscode.window.registerUriHandler({ handleUri }));
}

export function deactivate(): void {
  session?.leave();
}

function phase(): Session['phase'] {
  return session?.phase ?? 'disconnected';
}

/** Runs an action of the user and shows its error. */
async function reporting(run: () => unknown): Promise<void> {
  try {
    await run();
  } catch (error) {
    void vscode.window.showErrorMessage(explain(error));
  }
}

function configuredRelay(): string {
  const relay = vscode.workspace.getConfiguration('gitorialSync').get('relay', '').replace(/\/+$/, '');
  if (isRelay(relay)) return relay;
  throw new Error('The setting gitorialSync.relay must be an address that begins with http:// or https://.');
}

async function askForInvitation(): Promise<Invitation | undefined> {
  const prompt = "Paste the session's link or id";
  // Hidden like a password: a person who sees it can join.
  const text = await vscode.window.showInputBox({ prompt, password: true, ignoreFocusOut: true });
  if (text === undefined) return undefined;
  const invitation = parseInvitation(text);
  if (invitation) return invitation;
  throw new Error('The text is neither a link nor an id of a session: copy it again.');
}

async function copySessionLink(): Promise<void> {
  if (!session?.id) throw new Error('There is no session to link to: create or join one first.');
  const website = vscode.workspace.getConfiguration('gitorialSync').get('website', '');
  if (!isRelay(website))
    throw new Error('The setting gitorialSync.website must be an address that begins with http:// or https://.');
  await vscode.env.clipboard.writeText(websiteLink(website, { sessionId: session.id, relay: session.relay }));
  void vscode.window.showInformationMessage('The link is copied. Anyone who has it can join the session.');
}

/** Offers the possible actions, with the titles of the commands in package.json. */
async function showActions(context: vscode.ExtensionContext): Promise<void> {
  const { commands } = (context.extension.packageJSON as { contributes: { commands: { command: string; title: string }[] } })
    .contributes;
  const possible = POSSIBLE[phase()].map((action) => `gitorialSync.${action}`);
  const items = commands
    .filter(({ command }) => possible.includes(command))
    .map(({ command, title }) => ({ label: title, command }));
  const chosen = await vscode.window.showQuickPick(items, { placeHolder: 'Gitorial' });
  if (chosen) await vscode.commands.executeCommand(chosen.command);
}
