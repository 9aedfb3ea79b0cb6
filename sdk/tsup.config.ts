import { defineConfig, type Options } from 'tsup';

const common: Options = {
  target: 'es2022',
  sourcemap: true,
  esbuildOptions(options) {
    // src/package.json declares the sources as ES modules, so esbuild does not wrap each of them.
    // Private members begin with an underscore, so their names can be shortened.
    options.mangleProps = /^_[a-z]/;
  },
};

export default defineConfig([
  { ...common, entry: ['src/index.ts'], format: ['cjs', 'esm'], platform: 'node', dts: true },
  { ...common, entry: ['src/browser.ts'], format: ['cjs', 'esm'], platform: 'browser', dts: true },
  {
    ...common,
    entry: { 'gitorial-sync.min': 'src/global.ts' },
    format: 'iife',
    platform: 'browser',
    minify: true,
    outExtension: () => ({ js: '.js' }),
  },
]);
