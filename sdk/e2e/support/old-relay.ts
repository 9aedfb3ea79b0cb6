/**
 * A relay of the older generation: one process, no handshake, no resume, no epochs. It assigns a role when a client
 * chooses one, and forwards every other frame unchanged to the other clients.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';
import { addressOf, type Address } from './cluster';
import { listen, portOf } from './process';

interface Room {
  sockets: Map<WebSocket, string>;
  active: WebSocket | undefined;
}

export class OldRelay {
  private readonly _rooms = new Map<string, Room>();
  private readonly _server: Server;
  private readonly _sockets: WebSocketServer;

  private constructor() {
    this._server = createServer((request, response) => {
      const id = request.method === 'POST' ? randomUUID() : request.url?.split('/').at(-1);
      if (id && request.method === 'POST') this._rooms.set(id, { sockets: new Map(), active: undefined });
      const known = id !== undefined && this._rooms.has(id);
      response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
      response.end(JSON.stringify(known ? { id, status: 'active' } : { error: 'Session not found' }));
    });
    this._sockets = new WebSocketServer({ server: this._server });
    this._sockets.on('connection', (socket, request) => {
      const room = this._rooms.get(new URL(request.url!, 'http://old').searchParams.get('session') ?? '');
      if (room) this._join(room, socket);
      else socket.close(1008, 'Session not found');
    });
  }

  static async start(): Promise<OldRelay> {
    const relay = new OldRelay();
    await listen(relay._server);
    return relay;
  }

  get address(): Address {
    return addressOf(portOf(this._server));
  }

  /** Breaks every connection. */
  cut(): void {
    for (const socket of this._sockets.clients) socket.terminate();
  }

  async stop(): Promise<void> {
    this.cut();
    this._server.closeAllConnections();
    await new Promise((resolve) => this._server.close(resolve));
  }

  private _join(room: Room, socket: WebSocket): void {
    const id = randomUUID();
    room.sockets.set(socket, id);
    this._others(room, socket, JSON.stringify({ type: 'client_connected', clientId: id }));
    socket.on('message', (data) => this._receive(room, socket, String(data)));
    socket.on('close', () => {
      room.sockets.delete(socket);
      if (room.active === socket) room.active = undefined;
      this._others(room, socket, JSON.stringify({ type: 'client_disconnected', clientId: id }));
    });
  }

  private _receive(room: Room, socket: WebSocket, text: string): void {
    const { type, data } = JSON.parse(text) as { type: string; data?: { preferredDirection?: string } };
    if (type === 'coordinate_sync_direction') this._choose(room, socket, data?.preferredDirection === 'ACTIVE');
    else if (type !== 'protocol_handshake') this._others(room, socket, text);
  }

  private _choose(room: Room, socket: WebSocket, active: boolean): void {
    if (active) room.active ??= socket;
    const assignedDirection = room.active === socket ? 'ACTIVE' : 'PASSIVE';
    socket.send(JSON.stringify({ type: 'assign_sync_direction', clientId: 'relay-server', data: { assignedDirection } }));
  }

  private _others(room: Room, from: WebSocket, text: string): void {
    for (const socket of room.sockets.keys()) if (socket !== from) socket.send(text);
  }
}
