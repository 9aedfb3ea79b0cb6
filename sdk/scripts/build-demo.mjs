// Builds the demo page into one file, which is part of the relay's binary. `--check` only compares it with the committed
// file.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

const demo = new URL('../demo/', import.meta.url);
const target = new URL('../../src/http/demo.html', import.meta.url);
const read = (name) => readFileSync(new URL(name, demo), 'utf8');

const bundle = await build({
  entryPoints: ['demo/main.ts'],
  absWorkingDir: fileURLToPath(new URL('..', import.meta.url)),
  bundle: true,
  format: 'iife',
  legalComments: 'none',
  mangleProps: /^_[a-z]/,
  minify: true,
  target: 'es2022',
  write: false,
});
const script = bundle.outputFiles[0].text.trim();
const { code } = await transform(read('style.css'), { loader: 'css', minify: true });
const style = code.trim();

// The page loads nothing from elsewhere, and connects to any node that its user names.
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  'connect-src http: https: ws: wss:',
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

// A function, because the script has `$` in it.
const page = read('index.html')
  .replace(
    '<meta charset="utf-8">',
    () => `<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="${policy}">`,
  )
  .replace('</head>', () => `<style>${style}</style>\n</head>`)
  .replace('</body>', () => `<script>${script}</script>\n</body>`);

if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== page) {
    console.error('src/http/demo.html is out of date: run `npm run build:demo` in sdk/ and commit it.');
    process.exit(1);
  }
} else {
  writeFileSync(target, page);
  console.log(`the demo page has ${page.length} bytes`);
}
