/** Builds the page: one script and the HTML. */
import { copyFile } from 'node:fs/promises';
import { build } from 'esbuild';

await build({
  entryPoints: ['src/main.ts'],
  outfile: 'dist/main.js',
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  // Selects the client's build for browsers, which has no WebSocket for Node.js.
  conditions: ['browser'],
});
await copyFile('src/index.html', 'dist/index.html');
