/** What a link to this page says. It stands behind the `#`: a session's id is a secret, and that part goes to no server. */

export type SideName = 'website' | 'editor';

/** One side of a session that somebody else has begun. */
export interface Invitation {
  session: string;
  side: SideName;
  /** The relay's node, as `http://host:port`. */
  node: string;
}

/** Reads the part behind the `#`. */
export function read(fragment: string): Invitation | undefined {
  const given = new URLSearchParams(fragment.replace(/^#/, ''));
  const session = given.get('session');
  if (session === null || session === '') return undefined;
  const side = given.get('side') === 'website' ? 'website' : 'editor';
  return { session, side, node: given.get('node') ?? location.origin };
}

/** The link for an invitation. */
export function write(invitation: Invitation): string {
  return `${location.origin}${location.pathname}#${new URLSearchParams({ ...invitation })}`;
}

/** Whether an address means only this machine. */
export function isLocal(address: string): boolean {
  return ['localhost', '127.0.0.1', '[::1]'].includes(new URL(address).hostname);
}
