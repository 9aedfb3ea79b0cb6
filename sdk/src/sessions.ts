/** The relay's HTTP API. Section "HTTP API" of docs/protocol.md. */
import { SyncClientError, SyncErrorType, toJson } from './errors';
import type { SessionData } from './protocol';

/** Options for creating a session. */
export interface SessionOptions {
  /** The lifetime after the last activity, ms. The relay's setting by default. */
  expiresIn?: number;
  /** The relay's reaction to a client that asks for control while another has it. The relay's setting by default. */
  conflictResolution?: 'first_come_first_served' | 'user_choice' | 'deny_both';
  /** Aborts the call when it fires. */
  signal?: AbortSignal;
}

/** The address of the API and the way to call it. */
export interface Api {
  url: string;
  timeout: number;
  fetch: typeof globalThis.fetch;
}

/** Creates a session. */
export function create(api: Api, metadata: unknown, options: SessionOptions = {}): Promise<SessionData> {
  const { expiresIn, conflictResolution, signal } = options;
  return call(api, 'POST', '', { metadata, expiresIn, conflictResolution }, { signal });
}

/** Reads a session; `null` if it does not exist. */
export async function get(api: Api, id: string, signal?: AbortSignal): Promise<SessionData | null> {
  try {
    return await call<SessionData>(api, 'GET', `/${encodeURIComponent(id)}`, undefined, { signal });
  } catch (error) {
    if (error instanceof SyncClientError && error.type === SyncErrorType.SESSION_NOT_FOUND) return null;
    throw error;
  }
}

/** Ends a session for all its clients. */
export async function remove(api: Api, id: string, signal?: AbortSignal): Promise<void> {
  await call(api, 'DELETE', `/${encodeURIComponent(id)}`, undefined, { signal });
}

/** Lists the sessions, if the relay's operator allows that. */
export function list(api: Api, options: { adminToken?: string; signal?: AbortSignal } = {}): Promise<SessionData[]> {
  return call(api, 'GET', '', undefined, options);
}

async function call<T>(
  api: Api,
  method: string,
  path: string,
  body: unknown,
  options: { adminToken?: string; signal?: AbortSignal },
): Promise<T> {
  const payload = body === undefined ? undefined : toJson(body, 'the metadata');
  const headers: Record<string, string> = { 'Content-Type': 'application/json' };
  if (options.adminToken) headers.Authorization = `Bearer ${options.adminToken}`;
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  const timer = setTimeout(abort, api.timeout);
  options.signal?.addEventListener('abort', abort);
  if (options.signal?.aborted) abort();
  try {
    const response = await api.fetch(api.url + path, {
      method,
      headers,
      body: payload,
      signal: stop.signal,
    });
    const answer: unknown = await response.json().catch((cause: unknown) => {
      if (stop.signal.aborted) throw cause;
    });
    const error = refusal(response.status, answer);
    if (error) throw error;
    return answer as T;
  } catch (cause) {
    throw cause instanceof SyncClientError ? cause : failed(api, cause, stop.signal.aborted, options.signal);
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

/** The error of a refusal, if the answer is one. Older relays answer 200 and `{"error"}` if the session does not exist. */
function refusal(status: number, answer: unknown): SyncClientError | undefined {
  const { error, code, id } = (answer ?? {}) as { error?: string; code?: string; id?: string };
  const missing = status === 404 || (status === 200 && error !== undefined && id === undefined);
  if (missing) return new SyncClientError(SyncErrorType.SESSION_NOT_FOUND, error ?? 'Session not found', { status, code });
  if (status >= 200 && status < 300) return undefined;
  return new SyncClientError(SyncErrorType.REQUEST_FAILED, error ?? `the relay answered ${status}`, { status, code });
}

function failed(api: Api, cause: unknown, stopped: boolean, signal?: AbortSignal): SyncClientError {
  if (signal?.aborted) return new SyncClientError(SyncErrorType.ABORTED, 'the call was aborted', { cause: signal.reason });
  const where = new URL(api.url).origin;
  if (stopped) return new SyncClientError(SyncErrorType.TIMEOUT, `no answer from ${where} in ${api.timeout} ms`);
  return new SyncClientError(SyncErrorType.CONNECTION_FAILED, `the relay at ${where} cannot be reached`, { cause });
}
