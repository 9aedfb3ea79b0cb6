// What is compared, behind one face: start it, make a session, open a socket, say a state, hear one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const binary = here('../../target/release/gitorial-relay');

/** A free port of this machine. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Starts a program and waits for the line that says it is there. It does not outlive the comparison. */
export async function start(command, args, env, ready) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  child.on('exit', () => children.delete(child));
  const failed = once(child, 'exit').then(([code]) => {
    throw new Error(`${command} ended with ${code}`);
  });
  const said = (async () => {
    for await (const line of createInterface({ input: child.stdout })) if (ready.test(line)) return;
  })();
  await Promise.race([said, failed]);
  child.stdout.resume();
  failed.catch(() => {});
  return child;
}

/** Opens a WebSocket and waits until `isIn` finds the frame that says that it is in its session. */
function open(url, isIn) {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    const look = (text) => {
      if (!isIn(socket, text)) return;
      socket.off('message', hear);
      resolve(socket);
    };
    const hear = (data) => look(data.toString());
    socket.on('message', hear);
    socket.once('open', () => look(''));
  });
}

const overNode = (script) => async (port, redis) => {
  const env = { PORT: String(port), ...(redis && { REDIS_URL: redis }) };
  return start(process.execPath, [here(script)], env, /listening/);
};

const nodeSession = async () => crypto.randomUUID();

export const systems = [
  {
    name: 'gitorial-relay',
    async start(port, redis) {
      const args = ['--listen', `127.0.0.1:${port}`, '--log-level', 'warn', ...(redis ? ['--redis-url', redis] : [])];
      return start(binary, args, {}, /listening/);
    },
    async session(port) {
      const answer = await fetch(`http://127.0.0.1:${port}/api/sessions`, { method: 'POST' });
      return (await answer.json()).id;
    },
    open: (port, session) => open(`ws://127.0.0.1:${port}/ws?session=${session}`, () => true),
    say: (socket, data) => socket.send(`{"type":"state_update","clientId":"client_x","data":${data}}`),
    isState: (text) => text.startsWith('{"type":"state_update"'),
  },
  {
    name: 'Node.js, ws',
    alone: true,
    start: overNode('ws.mjs'),
    session: nodeSession,
    open: (port, session) => open(`ws://127.0.0.1:${port}/?session=${session}`, () => true),
    say: (socket, data) => socket.send(`{"type":"state_update","clientId":"client_x","data":${data}}`),
    isState: () => true,
  },
  {
    name: 'Node.js, Socket.IO',
    start: overNode('socketio.mjs'),
    session: nodeSession,
    open(port, session) {
      const url = `ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket&session=${session}`;
      return open(url, (socket, text) => {
        if (text.startsWith('0{')) socket.send('40');
        return text.startsWith('40');
      });
    },
    say: (socket, data) => socket.send(`42["state",{"type":"state_update","clientId":"client_x","data":${data}}]`),
    isState: (text) => text.startsWith('42["state"'),
    alive: (socket, text) => text === '2' && socket.send('3'),
  },
];
