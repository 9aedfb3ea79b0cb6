/** What a browser tells of sleep and of the network. Elsewhere nothing does, and nothing is listened to. */

/** What to do about it. */
export interface Wakes {
  /** The network is back, or the page is seen again. */
  awake(): void;
  /** The network has gone. */
  offline(): void;
}

/** Listens until the function it returns is called. */
export function watchWakes(wakes: Wakes): () => void {
  const { document, addEventListener, removeEventListener } = globalThis as Partial<typeof globalThis>;
  if (!document || !addEventListener || !removeEventListener) return () => {};
  const awake = (): void => wakes.awake();
  const offline = (): void => wakes.offline();
  const seen = (): void => {
    if (document.visibilityState === 'visible') wakes.awake();
  };
  addEventListener('online', awake);
  addEventListener('offline', offline);
  document.addEventListener('visibilitychange', seen);
  return () => {
    removeEventListener('online', awake);
    removeEventListener('offline', offline);
    document.removeEventListener('visibilitychange', seen);
  };
}
