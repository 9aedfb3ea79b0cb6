/** The package for browsers and for every other platform that has its own WebSocket. */
export * from './api';
export { RelayClient } from './client';
