/** A WebSocket that reports its frames. */

/** A sent or received frame. */
export interface ObservedFrame {
  sent: boolean;
  type: string;
  text: string;
}

/** The platform's WebSocket, with a callback for each frame. The resume token, which is a secret, is masked. */
export function observed(see: (frame: ObservedFrame) => void): typeof WebSocket {
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
