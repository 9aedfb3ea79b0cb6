/** The programs that a test starts and waits for. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** The time limit for every wait, ms. */
export const PATIENCE = 30_000;

/** Polls until the answer is not `undefined`, `null` or `false`. */
export async function until<T>(what: string, ask: () => T | Promise<T>): Promise<NonNullable<T>> {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== null && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A running program with its output. */
export class Program {
  output = '';
  private readonly _child: ChildProcess;

  constructor(command: string, args: string[]) {
    this._child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this._child.on('error', (error) => (this.output += String(error)));
    for (const stream of [this._child.stdout, this._child.stderr]) {
      stream?.on('data', (data: Buffer) => (this.output += data.toString()));
    }
  }

  get running(): boolean {
    return this._child.exitCode === null && this._child.signalCode === null;
  }

  /** Waits until the output matches `words`. */
  async hasSaid(words: RegExp): Promise<RegExpMatchArray> {
    return until(`${words} in the output of a program:\n${this.output}`, () => {
      const found = this.output.match(words);
      if (!found && !this.running) throw new Error(`the program ended:\n${this.output}`);
      return found;
    });
  }

  signal(signal: NodeJS.Signals): void {
    this._child.kill(signal);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!this.running) return;
    const exit = once(this._child, 'exit');
    this._child.kill(signal);
    await exit;
  }
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await listen(server);
  const port = portOf(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export async function listen(server: Server): Promise<void> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
}

export function portOf(server: Server): number {
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('the server does not listen');
  return address.port;
}
