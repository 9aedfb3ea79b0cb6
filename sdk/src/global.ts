/** The package as one file for a `<script>` tag: everything is on `GitorialSync`. */
import { RelayClient, SyncClientError, SyncErrorType, SyncPhase } from './browser';

Object.assign(globalThis, { GitorialSync: { RelayClient, SyncClientError, SyncErrorType, SyncPhase } });
