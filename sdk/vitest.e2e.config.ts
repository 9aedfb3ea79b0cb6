import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// These tests use the published form of the package on real nodes, Redis and browsers. The files run one after another.
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
