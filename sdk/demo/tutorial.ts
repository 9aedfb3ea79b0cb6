/** The tutorial of the demo: a small invented one. */
import type { TutorialSyncState } from '../src/protocol';

/** One step: the text of the website and the file of the editor. */
export interface Step {
  title: string;
  text: string;
  /** The file before the solution is shown, line by line. */
  code: string[];
  /** The lines that the solution adds, by their index in the solved file. */
  solution: Record<number, string>;
}

const head = ['use std::collections::HashMap;', ''];

/** The steps, in order. */
export const STEPS: readonly Step[] = [
  {
    title: 'Say hello',
    text: 'Every Rust program starts in main. Let it print a greeting, so that you see it work.',
    code: ['fn main() {', '}'],
    solution: { 1: '    println!("Hello, words!");' },
  },
  {
    title: 'Read the text',
    text: 'A word counter needs words. Read all of the standard input into one string.',
    code: ['fn main() {', '}'],
    solution: { 1: '    let text = std::io::read_to_string(std::io::stdin()).unwrap();' },
  },
  {
    title: 'Split it into words',
    text: 'White space separates words. The iterator is lazy: nothing is copied.',
    code: ['fn main() {', '    let text = std::io::read_to_string(std::io::stdin()).unwrap();', '}'],
    solution: { 2: '    let words = text.split_whitespace();' },
  },
  {
    title: 'Count each of them',
    text: 'A hash map from word to count. entry() finds or inserts a word with one lookup.',
    code: [
      ...head,
      'fn main() {',
      '    let text = std::io::read_to_string(std::io::stdin()).unwrap();',
      '    let mut counts = HashMap::new();',
      '    for word in text.split_whitespace() {',
      '    }',
      '}',
    ],
    solution: { 6: '        *counts.entry(word).or_insert(0) += 1;' },
  },
  {
    title: 'Show the most frequent',
    text: 'Sort the pairs by their count, the largest first, and print the first ten.',
    code: [
      ...head,
      'fn main() {',
      '    let text = std::io::read_to_string(std::io::stdin()).unwrap();',
      '    let mut counts = HashMap::new();',
      '    for word in text.split_whitespace() {',
      '        *counts.entry(word).or_insert(0) += 1;',
      '    }',
      '    let mut counts: Vec<_> = counts.into_iter().collect();',
      '}',
    ],
    solution: {
      9: '    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));',
      10: '    for (word, count) in counts.iter().take(10) {',
      11: '        println!("{count:>6} {word}");',
      12: '    }',
    },
  },
];

/** The lines of a step. `added` marks the lines of the solution. */
export function linesOf(index: number, solved: boolean): { text: string; added: boolean }[] {
  const { code, solution } = stepAt(index);
  const lines = code.map((text) => ({ text, added: false }));
  if (solved) for (const [at, text] of Object.entries(solution)) lines.splice(Number(at), 0, { text, added: true });
  return lines;
}

/** The step at this index, or the nearest one, because a peer may send any index. */
export function stepAt(index: number): Step {
  return STEPS[Math.min(Math.max(index, 0), STEPS.length - 1)]!;
}

/** The state of the tutorial, as the client sends it. */
export function stateAt(index: number, isShowingSolution: boolean): TutorialSyncState {
  const stepContent = {
    id: `step-${index + 1}`,
    title: stepAt(index).title,
    commitHash: (index + 1).toString(16).padStart(7, '0'),
    type: 'action' as const,
    index,
  };
  return {
    tutorialId: 'count-words',
    tutorialTitle: 'Count words in Rust',
    totalSteps: STEPS.length,
    isShowingSolution,
    stepContent,
  };
}
