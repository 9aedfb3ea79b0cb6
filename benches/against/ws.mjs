// The least that a Node.js process can do with the `ws` library: what one of a session sends goes to all others.

import { WebSocketServer } from 'ws';

const sessions = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PORT), perMessageDeflate: false });

server.on('listening', () => console.log('listening'));
server.on('connection', (socket, request) => {
  const session = new URL(request.url, 'ws://relay').searchParams.get('session');
  const members = sessions.get(session) ?? new Set();
  sessions.set(session, members.add(socket));
  socket.on('message', (data, isBinary) => {
    for (const other of members) if (other !== socket) other.send(data, { binary: isBinary });
  });
  socket.on('close', () => {
    members.delete(socket);
    if (members.size === 0) sessions.delete(session);
  });
});
