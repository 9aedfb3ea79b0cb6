// Measures the transfer size of the client: the file for a `<script>`, compressed with gzip.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT = 8 * 1024;

const script = readFileSync(new URL('../dist/gitorial-sync.min.js', import.meta.url));
const size = gzipSync(script, { level: 9 }).length;
console.log(`the client has ${size} bytes gzipped, of at most ${LIMIT} (${script.length} bytes uncompressed)`);
if (size > LIMIT) {
  console.error('The client is too large: reduce its size.');
  process.exit(1);
}
