/** The tutorial of a workspace: what `tutorial.json` says, and how a place in it becomes a state and back. */
import type { TutorialSyncState } from '@gitorial/sync';

export interface Step {
  title: string;
  /** The file that the step is about, from the folder of `tutorial.json`. */
  file: string;
  /** The line to look at, from 1. */
  line?: number;
  /** The file with the step's solution. */
  solution?: string;
}

export interface Tutorial {
  id: string;
  title: string;
  steps: Step[];
}

/** Where somebody is in a tutorial. */
export interface Place {
  /** The step, from 0. */
  index: number;
  showsSolution: boolean;
}

/** Reads a `tutorial.json`. The error names the member that is wrong. */
export function parseTutorial(text: string): Tutorial {
  const { id, title, steps } = asObject(asJson(text), 'it');
  if (!Array.isArray(steps) || steps.length === 0) throw wrong('"steps"', 'a list with at least one step');
  return {
    id: asText(id, '"id"'),
    title: asText(title, '"title"'),
    steps: steps.map((step: unknown, index) => parseStep(step, `step ${index + 1}`)),
  };
}

/** What the others are told about a place. The steps are no commits here, so there is no hash to tell. */
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

/** The place that a state tells of; `undefined` if this tutorial has none such. States come from others: do not trust them. */
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
    throw wrong('it', 'valid JSON');
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

/** A path that stays inside the tutorial: a workspace may come from anywhere. */
function asPath(value: unknown, name: string): string {
  const path = asText(value, name);
  const leaves = path.startsWith('/') || path.split('/').includes('..') || /[\\:]/.test(path);
  if (!leaves) return path;
  throw wrong(name, 'a path inside the tutorial, with "/" between folders');
}

function wrong(name: string, mustBe: string): Error {
  return new Error(`tutorial.json cannot be used: ${name} must be ${mustBe}.`);
}
