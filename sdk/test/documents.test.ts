import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { closedForGood, reconnectTiming } from '../src/codes';

const protocol = readFileSync(new URL('../../docs/protocol.md', import.meta.url), 'utf8');

/** The rows of the table of close codes: code, reason, action of a client. */
function closeCodes(): [code: number, reason: string, action: string][] {
  const section = protocol.split('### Close codes')[1]!.split('\n## ')[0]!;
  return [...section.matchAll(/^\| (\d{4}) \| `(.+?)` \| (.+?) \|$/gm)].map(([, code, reason, action]) => [
    Number(code),
    reason!,
    action!,
  ]);
}

describe('the close codes of the protocol', () => {
  it('are found in the document', () => {
    expect(closeCodes().length).toBeGreaterThan(10);
  });

  for (const [code, reason, action] of closeCodes()) {
    it(`have the documented reconnect timing: ${code} ${reason}`, () => {
      const when = reconnectTiming(code);
      if (/^(gives up|nothing)/.test(action)) expect(when).toBe('never');
      else if (action.includes('at once')) expect(when).toBe('at-once');
      else if (action.includes('after a while')) expect(when).toBe('later');
      else expect(when).toBe('soon');
    });

    it(`keep their reason as the error code: ${reason}`, () => {
      expect(closedForGood({ code, reason }).code).toBe(reason);
    });
  }
});

describe('the frame types of the client', () => {
  it('are all documented in the protocol', () => {
    const source = readFileSync(new URL('../src/protocol.ts', import.meta.url), 'utf8');
    const union = source.split('export type FrameType =')[1]!.split(';')[0]!;
    const types = [...union.matchAll(/'(\w+)'/g)].map(([, type]) => type);
    expect(types.length).toBeGreaterThan(15);
    expect(types.filter((type) => !protocol.includes(`| \`${type}\` |`))).toEqual([]);
  });
});

describe('the generated files', () => {
  for (const [what, script] of [
    ['the demo page', 'build-demo'],
    ['the API reference', 'api-reference'],
  ]) {
    it(`are up to date: ${what}`, { timeout: 60_000 }, () => {
      const path = fileURLToPath(new URL(`../scripts/${script}.mjs`, import.meta.url));
      const { status, stderr } = spawnSync(process.execPath, [path, '--check'], { encoding: 'utf8' });
      expect([status, stderr]).toEqual([0, '']);
    });
  }
});
