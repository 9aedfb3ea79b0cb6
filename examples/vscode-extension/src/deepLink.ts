/** Invitations to a session: a session's id and, in a link, its relay. */

export interface Invitation {
  /** A secret: every client that has it can join. */
  sessionId: string;
  /** Missing if only the id is known. */
  relay?: string;
}

const SESSION_ID = /^[\w-]{8,128}$/;

/** Parses the text that a user has pasted: a session's id, a link to the website, or a link into the editor. */
export function parseInvitation(text: string): Invitation | undefined {
  const given = text.trim();
  if (SESSION_ID.test(given)) return { sessionId: given };
  if (!URL.canParse(given)) return undefined;
  const { search, hash } = new URL(given);
  // The website's link has the session in the fragment, because a browser does not send that to a server.
  return parseQuery(`${search.slice(1)}&${hash.slice(1)}`);
}

/** Parses the query of `vscode://gitorial.gitorial-sync-example/join?session=…&relay=…`. */
export function parseQuery(query: string): Invitation | undefined {
  const members = new URLSearchParams(query);
  const sessionId = members.get('session') ?? '';
  const relay = members.get('relay') ?? undefined;
  if (!SESSION_ID.test(sessionId) || (relay !== undefined && !isRelay(relay))) return undefined;
  return { sessionId, relay };
}

/** The link that opens the website in the same session. */
export function websiteLink(website: string, { sessionId, relay }: Required<Invitation>): string {
  const url = new URL(website);
  url.searchParams.set('relay', relay);
  url.hash = new URLSearchParams({ session: sessionId }).toString();
  return url.href;
}

/** Whether `address` can be the address of a relay. */
export function isRelay(address: string): boolean {
  return URL.canParse(address) && ['http:', 'https:'].includes(new URL(address).protocol);
}
