/** A WebSocket that shows what goes through it. */

/** A frame that came or went. */
export interface Seen {
  sent: boolean;
  type: string;
  text: string;
}

/** The platform's WebSocket, watched. What proves who a client is, is not shown. */
export function watched(see: (frame: Seen) => void): typeof WebSocket {
  const note = (sent: boolean, data: unknown): void => {
    const frame = JSON.parse(String(data)) as { type: string; resume?: string };
    if (frame.resume !== undefined) frame.resume = '(secret)';
    see({ sent, type: frame.type, text: JSON.stringify(frame, null, 2) });
  };
  return class extends WebSocket {
    constructor(url: string | URL) {
      super(url);
      this.addEventListener('message', ({ data }) => note(false, data));
    }

    override send(data: string): void {
      note(true, data);
      super.send(data);
    }
  };
}
