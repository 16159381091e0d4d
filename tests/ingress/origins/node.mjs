// Node's http: tells each request that it got as a JSON line on standard output, and answers 200 `ok`.
import { createServer } from 'node:http';

const pairs = (raw) => Array.from({ length: raw.length / 2 }, (_, at) => [raw[2 * at].toLowerCase(), raw[2 * at + 1]]);

const server = createServer({ maxHeaderSize: 256 * 1024, keepAliveTimeout: 60_000 }, async (request, response) => {
  const body = [];
  try {
    for await (const piece of request) body.push(piece);
  } catch {
    return; // It broke off: no request.
  }
  const seen = {
    method: request.method,
    target: request.url,
    fields: pairs(request.rawHeaders),
    body: Buffer.concat(body).toString('hex'),
    trailers: pairs(request.rawTrailers),
  };
  process.stdout.write(`${JSON.stringify(seen)}\n`);
  response.setHeader('content-length', '2');
  response.end('ok');
});
server.maxHeadersCount = 0;
server.on('clientError', (_, socket) => socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'));
// `OPTIONS *` and others that ask for an upgrade are requests as all.
server.listen(0, '127.0.0.1', () => process.stdout.write(`${JSON.stringify({ ready: server.address().port })}\n`));
