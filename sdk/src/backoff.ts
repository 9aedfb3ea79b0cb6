/** The wait before a reconnect attempt. */
import type { ReconnectTiming } from './codes';

/** The longest wait before an immediate reconnect, ms: enough to spread the clients of a node that restarts. */
export const AT_ONCE_MS = 250;

/**
 * The wait before the next attempt, ms. Full jitter: a random time between zero and a bound that doubles with every
 * attempt, so that clients that lose their connection together do not reconnect together.
 *
 * @param attempt - the number of failed attempts since the last good connection, from 0
 * @param when - the timing that the close code asks for
 * @param base - the bound of the first wait, ms
 * @param longest - the longest wait, ms
 * @param random - returns a number from 0 to 1
 */
export function retryDelay(attempt: number, when: ReconnectTiming, base: number, longest: number, random = Math.random): number {
  if (when === 'at-once' && attempt === 0) return random() * Math.min(AT_ONCE_MS, longest);
  const bound = Math.min(longest, base * 2 ** Math.min(attempt, 30));
  // An overloaded relay asks for time, so the wait is never shorter than the base.
  const least = when === 'later' ? Math.min(longest, base) : 0;
  return least + random() * (longest === least ? 0 : Math.min(bound, longest - least));
}
