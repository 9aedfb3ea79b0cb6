/**
 * The client of a gitorial relay: keeps a website and an editor on the same step of a tutorial.
 *
 * @packageDocumentation
 */
import { WebSocket } from 'ws';
import { RelayClient as PlatformClient, type RelayClientConfig } from './client';

export * from './api';

/** The client. In Node.js its default WebSocket is the one of the `ws` package. */
export class RelayClient extends PlatformClient {
  constructor(config: RelayClientConfig) {
    super({ ...config, WebSocket: config.WebSocket ?? WebSocket });
  }
}
