/** The package as one file for a `<script>` tag: it defines `GitorialSync`. */
import { RelayClient, SyncClientError, SyncErrorType, SyncPhase } from './browser';

Object.assign(globalThis, { GitorialSync: { RelayClient, SyncClientError, SyncErrorType, SyncPhase } });
