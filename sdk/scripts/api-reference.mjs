// Writes the API reference from the doc comments. `--check` only compares it with the committed file.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Application } from 'typedoc';

const root = new URL('../', import.meta.url);
const target = new URL('API.md', root);
const folder = mkdtempSync(join(tmpdir(), 'api-reference-'));

process.chdir(fileURLToPath(root));
const app = await Application.bootstrapWithPlugins({
  entryPoints: ['src/browser.ts'],
  tsconfig: 'tsconfig.json',
  plugin: ['typedoc-plugin-markdown'],
  outputs: [{ name: 'markdown', path: folder }],
  readme: 'none',
  name: '@gitorial/sync',
  outputFileStrategy: 'modules',
  hidePageHeader: true,
  hideBreadcrumbs: true,
  disableSources: true,
  excludeExternals: true,
  excludePrivate: true,
  treatWarningsAsErrors: true,
  logLevel: 'Warn',
  parametersFormat: 'table',
  interfacePropertiesFormat: 'table',
  classPropertiesFormat: 'table',
  typeDeclarationFormat: 'table',
  useCodeBlocks: true,
  expandObjects: true,
});
const project = await app.convert();
if (!project) process.exit(1);
await app.generateOutputs(project);
if (app.logger.hasErrors() || app.logger.hasWarnings()) process.exit(1);
const reference = readFileSync(join(folder, 'README.md'), 'utf8');
rmSync(folder, { recursive: true });

if (!process.argv.includes('--check')) {
  writeFileSync(target, reference);
} else if (readFileSync(target, 'utf8') !== reference) {
  console.error('sdk/API.md is out of date: run `npm run build:api` in sdk/ and commit it.');
  process.exit(1);
}
