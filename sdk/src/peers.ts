/** Who else is in the session. */
import type { Emitter } from './events';

/** The peers of a client, as they come and go; a reconnect of the client itself is not told as theirs. */
export class Peers {
  private _here = new Set<string>();
  /** Who was here before the connection was lost, until the relay has said who is here now. */
  private _before = new Set<string>();
  private _open = false;

  constructor(private readonly _events: Emitter) {}

  all(): string[] {
    return [...this._here];
  }

  joined(clientId: string): void {
    if (this._here.has(clientId)) return;
    this._here.add(clientId);
    if (this._open) this._events.emit('clientConnected', clientId);
  }

  left(clientId: string): void {
    if (this._here.delete(clientId) && this._open) this._events.emit('clientDisconnected', clientId);
  }

  /** The relay has let the client in, and has said who is here. */
  opened(): void {
    this._open = true;
    for (const peer of this._before) if (!this._here.has(peer)) this._events.emit('clientDisconnected', peer);
    for (const peer of this._here) if (!this._before.has(peer)) this._events.emit('clientConnected', peer);
  }

  /** The connection is gone. */
  closed(): void {
    if (this._open) this._before = this._here;
    this._here = new Set();
    this._open = false;
  }
}
