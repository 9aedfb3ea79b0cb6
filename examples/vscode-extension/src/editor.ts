/** The editor's part of a session: reads the tutorial, opens its steps, and shows questions and messages. */
import * as vscode from 'vscode';
import { explain, type Viewer } from './session';
import { parseTutorial, type Place, type Tutorial } from './tutorial';

/** A tutorial and the folder of its files. */
interface OpenTutorial {
  tutorial: Tutorial;
  folder: vscode.Uri;
}

/** Shows a session in this window. */
export function viewerOf({ tutorial, folder }: OpenTutorial, update: () => void): Viewer {
  return {
    update,
    showStep: (place) => {
      openStep(tutorial, folder, place).catch(fail);
    },
    ask: async (question) => (await vscode.window.showInformationMessage(question, 'Accept', 'Decline')) === 'Accept',
    tell: (message) => void vscode.window.showInformationMessage(message),
    fail,
  };
}

/** Reads the tutorial of the open folder. */
export async function openTutorial(): Promise<OpenTutorial> {
  const [found] = await vscode.workspace.findFiles('tutorial.json', undefined, 1);
  if (!found) throw new Error('The open folder has no tutorial.json: open the folder of a tutorial.');
  const text = new TextDecoder().decode(await vscode.workspace.fs.readFile(found));
  return { tutorial: parseTutorial(text), folder: vscode.Uri.joinPath(found, '..') };
}

async function openStep(tutorial: Tutorial, folder: vscode.Uri, { index, showsSolution }: Place): Promise<void> {
  const step = tutorial.steps[index];
  if (!step) return;
  const solution = showsSolution ? step.solution : undefined;
  const document = await vscode.workspace.openTextDocument(vscode.Uri.joinPath(folder, solution ?? step.file));
  // The line belongs to the step's file, not to its solution.
  const line = solution ? 0 : (step.line ?? 1) - 1;
  await vscode.window.showTextDocument(document, { selection: new vscode.Range(line, 0, line, 0), preview: false });
}

function fail(error: unknown): void {
  void vscode.window.showErrorMessage(explain(error));
}
