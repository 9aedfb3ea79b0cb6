// Starts a relay with the embedded store and runs the tests of both examples against it.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const built = ['debug', 'release'].map((profile) => here(`../../target/${profile}/gitorial-relay`)).find(existsSync);
const program = process.env.RELAY_BIN ?? built;
if (program === undefined) {
  console.error('No relay program found: run `cargo build` or set RELAY_BIN.');
  process.exit(1);
}

const relay = spawn(program, ['serve', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
const url = await new Promise((resolve, reject) => {
  let output = '';
  relay.stdout.on('data', (data) => {
    output += data;
    const found = output.match(/http:\/\/127\.0\.0\.1:\d+/);
    if (found) resolve(found[0]);
  });
  relay.on('exit', (code) => reject(new Error(`the relay exited with ${code}`)));
});
const files = readdirSync(here('../test')).map((name) => here(`../test/${name}`));
const { status } = spawnSync(process.execPath, ['--test', ...files], {
  env: { ...process.env, RELAY_URL: url },
  stdio: 'inherit',
});
relay.removeAllListeners('exit');
relay.kill();
process.exit(status ?? 1);
