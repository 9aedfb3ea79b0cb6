/** A real Chromium, and pages that use the client as a `<script>` does. */
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { fileURLToPath } from 'node:url';
import type * as sync from '@gitorial/sync';
import { type Browser, chromium, type Page } from 'playwright-core';
import type { Address } from './cluster';
import { listen, portOf, until } from './process';

declare global {
  interface Window {
    GitorialSync: typeof sync;
    client: sync.RelayClient;
    /** Phases, losses and returns, in their order. */
    seen: string[];
  }
}

const SCRIPT = fileURLToPath(new URL('../../dist/gitorial-sync.min.js', import.meta.url));
const PAGE = '<!doctype html><meta charset="utf-8"><title>A tutorial</title><script src="/gitorial-sync.min.js"></script>';

/** Debian's Chromium, or the one that CHROMIUM names. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
}

/** A web site of its own origin, neither relay's. */
export class Site {
  private constructor(private readonly _server: Server) {}

  static async start(): Promise<Site> {
    const script = await readFile(SCRIPT);
    const server = createServer((request, response) => {
      const isScript = request.url === '/gitorial-sync.min.js';
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html').end(isScript ? script : PAGE);
    });
    await listen(server);
    return new Site(server);
  }

  /** A page with a client of the relay at this address, like that of somebody of their own. */
  async open(browser: Browser, address: Address): Promise<Page> {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${portOf(this._server)}/`);
    await page.evaluate((at) => {
      window.client = new window.GitorialSync.RelayClient({ ...at, reconnectDelay: 200 });
      window.seen = [];
      window.client.on('syncPhaseChanged', ({ newPhase }) => window.seen.push(newPhase));
      window.client.on('error', (error) => window.seen.push(`error: ${error.message}`));
    }, address);
    return page;
  }

  async stop(): Promise<void> {
    this._server.closeAllConnections();
    await new Promise((resolve) => this._server.close(resolve));
  }
}

/** Waits until a page's client is at this step. */
export async function shows(page: Page, index: number): Promise<void> {
  await until(`step ${index} on a page`, () =>
    page.evaluate((wanted) => window.client.getLastTutorialState()?.stepContent.index === wanted, index),
  );
}

/** Waits until a page's client is in this phase. */
export async function isIn(page: Page, phase: sync.SyncPhase): Promise<void> {
  await until(`${phase} on a page`, () => page.evaluate((wanted) => window.client.getCurrentSyncPhase() === wanted, phase));
}

/** Sends this step from a page. */
export function send(page: Page, state: sync.TutorialSyncState): Promise<void> {
  return page.evaluate((wanted) => window.client.sendTutorialState(wanted), state);
}
