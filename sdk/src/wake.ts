/** A browser's events about sleep and the network. Other platforms have none, and nothing is registered there. */

/** The callbacks for these events. */
export interface Wakes {
  /** The network is back, or the page is visible again. */
  awake(): void;
  /** The network is lost. */
  offline(): void;
}

/** Registers the callbacks. The returned function removes them. */
export function watchWakes(wakes: Wakes): () => void {
  const { document, addEventListener, removeEventListener } = globalThis as Partial<typeof globalThis>;
  if (!document || !addEventListener || !removeEventListener) return () => {};
  const awake = (): void => wakes.awake();
  const offline = (): void => wakes.offline();
  const visible = (): void => {
    if (document.visibilityState === 'visible') wakes.awake();
  };
  addEventListener('online', awake);
  addEventListener('offline', offline);
  document.addEventListener('visibilitychange', visible);
  return () => {
    removeEventListener('online', awake);
    removeEventListener('offline', offline);
    document.removeEventListener('visibilitychange', visible);
  };
}
