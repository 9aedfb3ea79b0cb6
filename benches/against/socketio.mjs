// Rooms of Socket.IO: who sends a state is heard by all others of its session. No roles, no order across nodes.
// With REDIS_URL several of these are one, by the Redis adapter.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { transports: ['websocket'] });

if (process.env.REDIS_URL) {
  const [out, inn] = [0, 1].map(() => createClient({ url: process.env.REDIS_URL }));
  await Promise.all([out.connect(), inn.connect()]);
  io.adapter(createAdapter(out, inn));
}

io.on('connection', (socket) => {
  const { session } = socket.handshake.query;
  socket.join(session);
  socket.on('state', (state) => socket.to(session).emit('state', state));
});

http.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));
