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
    /** The phases and errors, in order. */
    seen: string[];
  }
}

const SCRIPT = fileURLToPath(new URL('../../dist/gitorial-sync.min.js', import.meta.url));
const PAGE = '<!doctype html><meta charset="utf-8"><title>A tutorial</title><script src="/gitorial-sync.min.js"></script>';

/** Starts the browser that CHROMIUM names; the default is Debian's Chromium. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
}

/** A web site with its own origin, different from the relay's. */
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

  /** Opens a page with a client of the relay at this address, in its own browser context. */
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
