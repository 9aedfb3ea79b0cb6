import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// What is tested is the package as it is published, on real nodes, Redis and browsers: one file after the other.
export default defineConfig({
  resolve: { alias: { '@gitorial/sync': fileURLToPath(new URL('dist/index.mjs', import.meta.url)) } },
  test: {
    include: ['e2e/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 90_000,
    env: { NODE_NO_WARNINGS: '1' },
  },
});
