/** The part of the `vscode` module that the example needs, with a record of its calls. */
import { readFile } from 'node:fs/promises';
import Module, { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(import.meta.url);
const nothing = { dispose() {} };

class Range {
  constructor(startLine, startCharacter) {
    this.start = { line: startLine, character: startCharacter };
  }
}

/** A Uri is an object with a `path` here. */
const Uri = { joinPath: ({ path }, ...parts) => ({ path: join(path, ...parts) }) };

/** Loads and activates a bundled extension in a fake editor that has `folder` open. */
export function activateIn(extensionFolder, folder, settings) {
  const editor = new FakeEditor(folder, settings);
  const load = Module._load;
  Module._load = (name, ...rest) => (name === 'vscode' ? editor.api : load(name, ...rest));
  const packageJSON = require(join(extensionFolder, 'package.json'));
  const extension = require(join(extensionFolder, packageJSON.main));
  Module._load = load;
  extension.activate({ subscriptions: [], extension: { packageJSON } });
  return Object.assign(editor, { extension, packageJSON });
}

class FakeEditor {
  commands = new Map();
  contexts = {};
  errors = [];
  clipboard = '';
  statusItem = { text: '', tooltip: '', show() {}, dispose() {} };
  /** The last opened file and its line, from 1. */
  shown = undefined;
  /** The text that the user types into the next input box. */
  typed = undefined;
  /** The items of the last quick pick. */
  offered = [];
  /** The questions of the extension, and the button that answers the next one. */
  questions = [];
  button = undefined;

  constructor(folder, settings) {
    this.api = { Range, Uri, StatusBarAlignment: { Left: 1 }, ...this.parts(folder, settings) };
  }

  run(command) {
    return this.commands.get(`gitorialSync.${command}`)();
  }

  parts(folder, settings) {
    return {
      commands: {
        registerCommand: (id, handler) => (this.commands.set(id, handler), nothing),
        executeCommand: async (id, key, value) => (id === 'setContext' ? (this.contexts[key] = value) : this.commands.get(id)()),
      },
      env: { clipboard: { writeText: async (text) => (this.clipboard = text) } },
      window: this.window(),
      workspace: {
        findFiles: async (name) => [{ path: join(folder, name) }],
        fs: { readFile: ({ path }) => readFile(path) },
        openTextDocument: async (uri) => ({ uri, text: await readFile(uri.path, 'utf8') }),
        getConfiguration: (section) => ({ get: (name) => settings[`${section}.${name}`] }),
      },
    };
  }

  window() {
    return {
      createStatusBarItem: () => this.statusItem,
      registerUriHandler: (handler) => ((this.uriHandler = handler), nothing),
      showErrorMessage: async (message) => void this.errors.push(message),
      showInformationMessage: async (message, ...buttons) => {
        if (buttons.length === 0) return undefined;
        this.questions.push(message);
        return this.button;
      },
      showInputBox: async (options) => ((this.inputBox = options), this.typed),
      showQuickPick: async (items) => void (this.offered = items.map(({ label }) => label)),
      showTextDocument: async ({ uri }, { selection }) => (this.shown = { file: uri.path, line: selection.start.line + 1 }),
    };
  }
}
