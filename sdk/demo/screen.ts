/** The screens of the two sides: an article in a browser window and a file in an editor. */
import type { Side } from './side';
import { linesOf, stepAt, STEPS } from './tutorial';

/** Draws the screen of a side. */
export function drawScreen(screen: HTMLElement, side: Side): void {
  const drawn = side.name === 'website' ? article(side) : file(side);
  screen.replaceChildren(...drawn);
}

function article({ index, solved }: Side): HTMLElement[] {
  const { title, text } = stepAt(index);
  const progress = element('progress', '');
  Object.assign(progress, { max: STEPS.length, value: index + 1 });
  progress.setAttribute('aria-label', 'Progress of the tutorial');
  const added = linesOf(index, true)
    .filter((line) => line.added)
    .map((line) => line.text);
  const indent = Math.min(...added.map((line) => line.search(/\S/)));
  const answer = element(
    'pre',
    'answer',
    solved ? added.map((line) => line.slice(indent)).join('\n') : 'The solution is hidden.',
  );
  answer.classList.toggle('veiled', !solved);
  return [
    element('p', 'address', 'learn.example/count-words'),
    element('p', 'course', `Count words in Rust · step ${index + 1} of ${STEPS.length}`),
    element('h3', '', title),
    element('p', '', text),
    answer,
    progress,
  ];
}

function file({ index, solved, phase }: Side): HTMLElement[] {
  const code = element('ol', 'code');
  code.setAttribute('aria-label', 'The file main.rs');
  for (const { text, added } of linesOf(index, solved)) {
    const line = element('li', added ? 'added' : '');
    line.append(element('code', '', text === '' ? ' ' : text));
    code.append(line);
  }
  const role = phase === 'active' ? 'In control' : phase === 'passive' ? 'Following' : 'Gitorial';
  return [
    element('p', 'tab', 'main.rs'),
    code,
    element('p', 'status', `⇄ ${role} ${index + 1}/${STEPS.length} · ${stepAt(index).title}`),
  ];
}

function element(tag: string, className: string, text?: string): HTMLElement {
  const made = document.createElement(tag);
  if (className !== '') made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
