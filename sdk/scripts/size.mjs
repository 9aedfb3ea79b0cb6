// How large the client is on its way into a page: the one file for a `<script>`, compressed as servers do.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT = 8 * 1024;

const script = readFileSync(new URL('../dist/gitorial-sync.min.js', import.meta.url));
const size = gzipSync(script, { level: 9 }).length;
console.log(`the client has ${size} bytes gzipped, of at most ${LIMIT} (${script.length} bytes before that)`);
if (size > LIMIT) {
  console.error('The client has become too large: take something out.');
  process.exit(1);
}
