/** Waits for a condition, up to a deadline. */
import { setTimeout as pause } from 'node:timers/promises';

const DEADLINE_MS = 20_000;

/** Waits until `look` returns a truthy value, and returns it. */
export async function until(what, look) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`timed out after ${DEADLINE_MS / 1000} s waiting for ${what}`);
    await pause(20);
  }
}

/** The address of the relay under test. */
export function relayUrl() {
  const url = process.env.RELAY_URL;
  if (url) return url;
  throw new Error('Set RELAY_URL to the address of a running relay, for example RELAY_URL=http://127.0.0.1:8080.');
}
