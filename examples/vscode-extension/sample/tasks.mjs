import { load, save } from './store.mjs';

// The words after "node tasks.mjs": a command and its subject.
const [command = 'list', subject = ''] = process.argv.slice(2);
const tasks = load();

switch (command) {
  case 'list':
    tasks.forEach(({ title, done }, at) => console.log(`${at + 1}. [${done ? 'x' : ' '}] ${title}`));
    break;
  case 'add':
    save([...tasks, { title: subject, done: false }]);
    break;
  case 'done':
    console.log('Your turn: mark the task with this number as done, and save the list.');
    break;
  default:
    console.log('Commands: list, add "something to do", done 1');
}
