/** The package in a browser, and wherever else the platform has a WebSocket of its own. */
export * from './api';
export { RelayClient } from './client';
