/** Serves only the built page, and only on this machine. */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

const FILES = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/main.js': ['main.js', 'text/javascript; charset=utf-8'],
};
const port = Number(process.env.PORT ?? 5173);

const server = createServer(async (request, response) => {
  const [name, type] = FILES[new URL(request.url, 'http://localhost').pathname] ?? [];
  try {
    if (!name) return response.writeHead(404).end('Not found');
    const content = await readFile(new URL(`dist/${name}`, import.meta.url));
    response.writeHead(200, { 'Content-Type': type, 'Cache-Control': 'no-cache' }).end(content);
  } catch {
    response.writeHead(500).end('The page is not built yet: run "npm run build".');
  }
});

server.listen(port, '127.0.0.1', () => console.log(`The tutorial is at http://127.0.0.1:${server.address().port}/`));
