/** When to try again. */
import type { Return } from './codes';

/** The longest wait before a client comes back at once, ms: enough to spread the clients of a node that goes away. */
export const AT_ONCE_MS = 250;

/**
 * The wait before the next attempt, ms. Full jitter: anything from nothing to the bound, which doubles with every
 * attempt, so that clients that were lost together do not come back together.
 *
 * @param attempt - how many attempts have failed since the last good connection, from 0
 * @param when - what the close asked for
 * @param base - the bound of the first wait, ms
 * @param longest - no wait is longer, ms
 * @param random - a number from 0 to 1
 */
export function retryDelay(attempt: number, when: Return, base: number, longest: number, random = Math.random): number {
  if (when === 'at-once' && attempt === 0) return random() * Math.min(AT_ONCE_MS, longest);
  const bound = Math.min(longest, base * 2 ** Math.min(attempt, 30));
  // A relay that is overloaded has said so: never come back at once.
  const least = when === 'later' ? Math.min(longest, base) : 0;
  return least + random() * (longest === least ? 0 : Math.min(bound, longest - least));
}
