/** Docker and the images of the tests. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { at } from './support.mjs';

export function run(command, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    ...options,
  });
  return { status, stdout: stdout ?? '', stderr: `${error ?? ''}${stderr ?? ''}` };
}

export function docker(...args) {
  const { status, stdout, stderr } = run('docker', args);
  if (status !== 0) throw new Error(`docker ${args.join(' ')}: ${stderr}`);
  return stdout.trim();
}

/** Finds a docker program with BuildKit. Newer versions need a plugin for it; older ones include it. */
function builder() {
  const able = (program) =>
    run(program, ['buildx', 'version']).status === 0 || /version (19|20|22)\./.test(run(program, ['--version']).stdout);
  const found = ['docker', '/usr/bin/docker'].find(able);
  if (found === undefined) throw new Error("no docker program with BuildKit found: install docker-buildx or Debian's docker.io");
  return found;
}

/** The image that IMAGE names, or a build of the Dockerfile's last stage with the program that RELAY_BIN names. */
export function relayImage() {
  const { status, stderr } = run(at('tests/support/docker.sh'), []);
  if (status !== 0) throw new Error(stderr.trim());
  return process.env.IMAGE ?? build();
}

function build() {
  const program = process.env.RELAY_BIN;
  if (program === undefined) throw new Error('set IMAGE to an image of the relay or RELAY_BIN to a static program');
  const folder = mkdtempSync(join(tmpdir(), 'gitorial-image-'));
  mkdirSync(join(folder, 'out/etc/ssl/certs'), { recursive: true });
  cpSync(program, join(folder, 'out/gitorial-relay'));
  cpSync(at('LICENSE'), join(folder, 'out/LICENSE'));
  cpSync('/etc/ssl/certs/ca-certificates.crt', join(folder, 'out/etc/ssl/certs/ca-certificates.crt'));
  const packed = run('tar', ['-C', folder, '-c', '.'], { encoding: 'buffer', maxBuffer: 1 << 28 }).stdout;
  run('docker', ['import', '-', 'relay-test-binary:latest'], { input: packed });
  rmSync(folder, { recursive: true });
  const image = 'relay-test-image:latest';
  const args = ['build', '-f', at('deploy/Dockerfile'), '--build-arg', 'BINARY=relay-test-binary:latest', '-t', image, at('.')];
  const { status, stderr } = run(builder(), args, { env: { ...process.env, DOCKER_BUILDKIT: '1' } });
  if (status !== 0) throw new Error(stderr);
  return image;
}
