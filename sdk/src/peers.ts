/** The other clients of the session. */
import type { Emitter } from './events';

/** The peers of a client. A reconnect of the client itself causes no events for peers that stayed. */
export class Peers {
  private _present = new Set<string>();
  /** The peers before the connection was lost, until the relay has reported the current ones. */
  private _beforeLoss = new Set<string>();
  private _open = false;

  constructor(private readonly _events: Emitter) {}

  all(): string[] {
    return [...this._present];
  }

  joined(clientId: string): void {
    if (this._present.has(clientId)) return;
    this._present.add(clientId);
    if (this._open) this._events.emit('clientConnected', clientId);
  }

  left(clientId: string): void {
    if (this._present.delete(clientId) && this._open) this._events.emit('clientDisconnected', clientId);
  }

  /** The relay has admitted the client and has reported its peers. */
  opened(): void {
    this._open = true;
    for (const peer of this._beforeLoss) if (!this._present.has(peer)) this._events.emit('clientDisconnected', peer);
    for (const peer of this._present) if (!this._beforeLoss.has(peer)) this._events.emit('clientConnected', peer);
  }

  /** The connection is lost or closed. */
  closed(): void {
    if (this._open) this._beforeLoss = this._present;
    this._present = new Set();
    this._open = false;
  }
}
