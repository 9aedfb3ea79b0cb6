/** Builds the page: one script, and the HTML beside it. */
import { copyFile } from 'node:fs/promises';
import { build } from 'esbuild';

await build({
  entryPoints: ['src/main.ts'],
  outfile: 'dist/main.js',
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  // The client has a build for browsers, without the WebSocket of Node.js.
  conditions: ['browser'],
});
await copyFile('src/index.html', 'dist/index.html');
