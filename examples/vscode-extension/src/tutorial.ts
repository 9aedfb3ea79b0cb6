/** The tutorial of a workspace: its `tutorial.json`, and the conversion of a place in it to a state and back. */
import type { TutorialSyncState } from '@gitorial/sync';

export interface Step {
  title: string;
  /** The file of the step, relative to the folder of `tutorial.json`. */
  file: string;
  /** The line to show, from 1. */
  line?: number;
  /** The file with the step's solution. */
  solution?: string;
}

export interface Tutorial {
  id: string;
  title: string;
  steps: Step[];
}

/** A place in a tutorial. */
export interface Place {
  /** The step, from 0. */
  index: number;
  showsSolution: boolean;
}

/** Parses a `tutorial.json`. The error names the invalid member. */
export function parseTutorial(text: string): Tutorial {
  const { id, title, steps } = asObject(asJson(text), 'the file');
  if (!Array.isArray(steps) || steps.length === 0) throw wrong('"steps"', 'a list with at least one step');
  return {
    id: asText(id, '"id"'),
    title: asText(title, '"title"'),
    steps: steps.map((step: unknown, index) => parseStep(step, `step ${index + 1}`)),
  };
}

/** The state for a place. The steps of this example are not commits, so the state has no hash. */
export function toState(tutorial: Tutorial, { index, showsSolution }: Place): TutorialSyncState {
  const title = tutorial.steps[index]?.title ?? '';
  return {
    tutorialId: tutorial.id,
    tutorialTitle: tutorial.title,
    totalSteps: tutorial.steps.length,
    isShowingSolution: showsSolution,
    stepContent: { id: `step-${index + 1}`, title, commitHash: '', type: 'action', index },
  };
}

/** The place of a state; `undefined` if this tutorial does not have it. A state comes from another client: do not trust it. */
export function toPlace(tutorial: Tutorial, state: Partial<TutorialSyncState>): Place | undefined {
  const index = state.stepContent?.index;
  if (state.tutorialId !== tutorial.id || index === undefined || !(index in tutorial.steps)) return undefined;
  return { index, showsSolution: state.isShowingSolution === true };
}

function parseStep(value: unknown, name: string): Step {
  const { title, file, line, solution } = asObject(value, name);
  if (line !== undefined && !(Number.isInteger(line) && Number(line) > 0))
    throw wrong(`"line" of ${name}`, 'a whole number from 1');
  return {
    title: asText(title, `"title" of ${name}`),
    file: asPath(file, `"file" of ${name}`),
    line: line as number | undefined,
    solution: solution === undefined ? undefined : asPath(solution, `"solution" of ${name}`),
  };
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw wrong('the file', 'valid JSON');
  }
}

function asObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  throw wrong(name, 'an object');
}

function asText(value: unknown, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw wrong(name, 'a text');
}

/** A path inside the tutorial. A workspace may come from an untrusted source. */
function asPath(value: unknown, name: string): string {
  const path = asText(value, name);
  const leaves = path.startsWith('/') || path.split('/').includes('..') || /[\\:]/.test(path);
  if (!leaves) return path;
  throw wrong(name, 'a path inside the tutorial, with "/" between folders');
}

function wrong(name: string, mustBe: string): Error {
  return new Error(`Invalid tutorial.json: ${name} must be ${mustBe}.`);
}
