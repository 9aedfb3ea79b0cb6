import { readFileSync, writeFileSync } from 'node:fs';

const FILE = 'tasks.json';

/** The saved tasks; an empty list if there is no file. */
export function load() {
  try {
    return JSON.parse(readFileSync(FILE, 'utf8'));
  } catch {
    return [];
  }
}

export function save(tasks) {
  writeFileSync(FILE, JSON.stringify(tasks, null, 2));
}
