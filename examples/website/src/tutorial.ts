/** The tutorial of this page, and the conversion of a place in it to a state and back. */
import type { TutorialSyncState } from '@gitorial/sync';

export interface Step {
  title: string;
  text: string;
  code?: string;
  /** The code of the step's solution. */
  solution?: string;
}

/** A place in the tutorial. */
export interface Place {
  /** The step, from 0. */
  index: number;
  showsSolution: boolean;
}

/** The id of the tutorial on both sides: the `tutorial.json` of an editor's folder has the same one. */
const ID = 'task-list';
export const TITLE = 'A task list for the terminal';

export const STEPS: readonly Step[] = [
  {
    title: 'What you will build',
    text: 'A small program that remembers what you want to do, in two files. It needs Node.js and nothing else. Open the folder in your editor, and both stay on the same step.',
  },
  {
    title: 'Keep the list in a file',
    text: 'A program forgets everything when it ends, so the list lives in a file. The first time there is none, and the list is empty.',
    code: "export function load() {\n  try {\n    return JSON.parse(readFileSync(FILE, 'utf8'));\n  } catch {\n    return [];\n  }\n}",
  },
  {
    title: 'Read the command',
    text: 'What you type after “node tasks.mjs” is in process.argv, after two entries of its own. The first word is the command, the second what it is about.',
    code: "const [command = 'list', subject = ''] = process.argv.slice(2);\nconst tasks = load();",
  },
  {
    title: 'Mark a task as done',
    text: 'Your turn: make “done 1” mark the first task. People count from 1, lists from 0. Do not forget to save.',
    code: "case 'done':\n  // your code",
    solution:
      "case 'done':\n  save(tasks.map((task, at) =>\n    at + 1 === Number(subject) ? { ...task, done: true } : task));\n  break;",
  },
  {
    title: 'Try it',
    text: 'Add something, list it, and mark it as done. Then end the program and list again: it is still there.',
    code: 'node tasks.mjs add "Read the first step"\nnode tasks.mjs list\nnode tasks.mjs done 1',
  },
];

/** The state for a place. The steps of this example are not commits, so the state has no hash. */
export function toState({ index, showsSolution }: Place): TutorialSyncState {
  const title = STEPS[index]?.title ?? '';
  return {
    tutorialId: ID,
    tutorialTitle: TITLE,
    totalSteps: STEPS.length,
    isShowingSolution: showsSolution,
    stepContent: { id: `step-${index + 1}`, title, commitHash: '', type: 'action', index },
  };
}

/** The place of a state; `undefined` if this tutorial does not have it. A state comes from another client: do not trust it. */
export function toPlace(state: Partial<TutorialSyncState>): Place | undefined {
  const index = state.stepContent?.index;
  if (state.tutorialId !== ID || index === undefined || !(index in STEPS)) return undefined;
  return { index, showsSolution: state.isShowingSolution === true };
}
