import { defineConfig, type Options } from 'tsup';

const common: Options = {
  target: 'es2022',
  sourcemap: true,
  esbuildOptions(options) {
    // That sources are ES modules, as src/package.json says, keeps esbuild from wrapping each of them.
    // Private members begin with an underscore: their names need not travel.
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
