import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RelayClient } from '../src/browser';
import { failure } from './support/fake-relay';

interface Seen {
  method: string;
  url: string;
  authorization: string | undefined;
  body: string;
}

let server: Server;
let seen: Seen[];
let answer: [status: number, body: string] | 'nothing';
let client: RelayClient;

async function read(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

beforeEach(async () => {
  seen = [];
  server = createServer(async (request, response) => {
    const { method = '', url = '', headers } = request;
    seen.push({ method, url, authorization: headers.authorization, body: await read(request) });
    if (answer === 'nothing') return;
    response.writeHead(answer[0], { 'Content-Type': 'application/json' }).end(answer[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const baseUrl = `http://127.0.0.1:${port}/relay/`;
  client = new RelayClient({
    baseUrl,
    wsUrl: `ws://127.0.0.1:${port}`,
    sessionEndpoint: '/api/sessions',
    connectionTimeout: 1_000,
  });
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const session = JSON.stringify({ id: 'abc', clientCount: 0 });

describe('sessions', () => {
  it('are created with metadata and options', async () => {
    answer = [201, session];
    const options = { expiresIn: 5_000, conflictResolution: 'user_choice' } as const;
    expect(await client.createSession({ tutorial: 'x' }, options)).toMatchObject({ id: 'abc' });
    expect(seen).toMatchObject([{ method: 'POST', url: '/relay/api/sessions' }]);
    expect(JSON.parse(seen[0]!.body)).toEqual({ metadata: { tutorial: 'x' }, ...options });
  });

  it('are read, and null if missing', async () => {
    answer = [200, session];
    expect(await client.getSession('a/b')).toMatchObject({ id: 'abc' });
    expect(seen[0]!.url).toBe('/relay/api/sessions/a%2Fb');
    answer = [404, '{"error":"Session not found","code":"session_not_found"}'];
    expect(await client.getSession('abc')).toBe(null);
    expect(await client.getSession()).toBe(null);
  });

  it('are null if an old relay answers 200 with an error', async () => {
    answer = [200, '{"error":"Session not found"}'];
    expect(await client.getSession('abc')).toBe(null);
  });

  it('are deleted', async () => {
    answer = [200, '{"message":"Session deleted"}'];
    await client.deleteSession('abc');
    expect(seen).toMatchObject([{ method: 'DELETE', url: '/relay/api/sessions/abc' }]);
    answer = [404, '{}'];
    expect(await failure(() => client.deleteSession('abc'))).toMatchObject({ type: 'session_not_found' });
  });

  it('are listed with the admin token', async () => {
    answer = [200, `[${session}]`];
    expect(await client.listSessions({ adminToken: 'secret' })).toMatchObject([{ id: 'abc' }]);
    expect(seen).toMatchObject([{ method: 'GET', url: '/relay/api/sessions', authorization: 'Bearer secret' }]);
  });

  it('are refused with the message and code of the relay', async () => {
    answer = [503, '{"error":"The store is away.","code":"store_unavailable"}'];
    expect(await failure(() => client.createSession())).toMatchObject({
      type: 'request_failed',
      status: 503,
      code: 'store_unavailable',
      message: 'The store is away.',
    });
    answer = [502, '<html>'];
    expect(await failure(() => client.createSession())).toMatchObject({ type: 'request_failed', status: 502 });
  });

  it('reject metadata that JSON cannot represent', async () => {
    const round: { self?: unknown } = {};
    round.self = round;
    expect(await failure(() => client.createSession(round))).toMatchObject({ type: 'invalid_state' });
    expect(seen).toEqual([]);
  });

  it('obey the time-out and the AbortSignal', async () => {
    answer = 'nothing';
    expect(await failure(() => client.createSession())).toMatchObject({ type: 'timeout' });
    const stop = new AbortController();
    const failing = failure(() => client.createSession({}, { signal: stop.signal }));
    stop.abort('enough');
    expect(await failing).toMatchObject({ type: 'aborted', cause: 'enough' });
    expect(await failure(() => client.createSession({}, { signal: stop.signal }))).toMatchObject({ type: 'aborted' });
  });

  it('on an unreachable relay fail without naming the session', async () => {
    const away = new RelayClient({ baseUrl: 'http://127.0.0.1:1', wsUrl: 'ws://127.0.0.1:1', sessionEndpoint: '/api/sessions' });
    const error = await failure(() => away.getSession('a-secret'));
    expect(error.type).toBe('connection_failed');
    expect(error.message).not.toContain('a-secret');
  });
});
