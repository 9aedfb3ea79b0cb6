/** The content of a link to this page, in the fragment: no server gets it, and a session's id is a secret. */

export type SideName = 'website' | 'editor';

/** One side of a session that already exists. */
export interface Invitation {
  session: string;
  side: SideName;
  /** The relay's node, as `http://host:port`. */
  node: string;
}

/** The node that this page is from, with the path prefix that a proxy keeps. */
export const here = `${location.origin}${location.pathname.replace(/\/+$/, '')}`;

/** Reads the fragment of a URL. */
export function read(fragment: string): Invitation | undefined {
  const given = new URLSearchParams(fragment.replace(/^#/, ''));
  const session = given.get('session');
  if (session === null || session === '') return undefined;
  const side = given.get('side') === 'website' ? 'website' : 'editor';
  return { session, side, node: given.get('node') ?? here };
}

/** The link for an invitation. */
export function write(invitation: Invitation): string {
  return `${location.origin}${location.pathname}#${new URLSearchParams({ ...invitation })}`;
}

/** Whether an address is reachable only from this machine. */
export function isLocal(address: string): boolean {
  return ['localhost', '127.0.0.1', '[::1]'].includes(new URL(address).hostname);
}
