// Node's own clients: http, http2, fetch and WebSocket. Prints one JSON line {name, result} for each thing tried.
// usage: clients.mjs <http port> <h2c port or 0> <ws port> <host for http> <host for ws>
import dns from 'node:dns';
import http from 'node:http';
import http2 from 'node:http2';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';

const [httpPort, h2Port, wsPort, host, wsHost] = process.argv.slice(2);
// RFC 6761, section 6.3: the resolver need not know it.
const asked = dns.lookup;
dns.lookup = (name, options, done) => asked(name.endsWith('.localhost') ? '127.0.0.1' : name, options, done);

const digest = (data) => createHash('sha256').update(data).digest('hex').slice(0, 16);
const collect = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
};
const tell = (name, result) => process.stdout.write(`${JSON.stringify({ name, result })}\n`);
const trying = async (name, act) => {
  try {
    tell(name, await act());
  } catch (error) {
    tell(name, `failed: ${error.cause?.code ?? error.code ?? error.message}`);
  }
};

const request = (options, send = (outgoing) => outgoing.end()) =>
  new Promise((resolve, reject) => {
    const outgoing = http.request({ host: '127.0.0.1', port: httpPort, headers: { host }, ...options, headers: { host, ...options.headers } });
    const informational = [];
    let continued = false;
    outgoing.on('information', ({ statusCode }) => informational.push(statusCode));
    outgoing.on('continue', () => (continued = true));
    outgoing.on('response', async (response) => {
      const body = await collect(response);
      resolve({ status: response.statusCode, body: body.length < 400 ? body.toString() : digest(body), informational, continued, trailers: response.trailers });
    });
    outgoing.on('error', reject);
    send(outgoing);
  });

await trying('http get', () => request({ path: '/echo?a=b', headers: { 'x-test': 'a, b' } }));
await trying('http head', () => request({ method: 'HEAD', path: '/echo' }));
await trying('http post length', () => request({ method: 'POST', path: '/echo', headers: { 'content-length': 5 } }, (o) => o.end('hello')));
await trying('http post chunked', () => request({ method: 'POST', path: '/echo' }, (o) => { o.write('he'); o.end('llo'); }));
await trying('http put 4 MiB', () => request({ method: 'PUT', path: '/echo' }, (o) => Readable.from((function* () { for (let at = 0; at < 64; at++) yield Buffer.alloc(65536, at); })()).pipe(o)));
await trying('http trailers', () => request({ method: 'POST', path: '/echo', headers: { trailer: 'x-sum' } }, (o) => { o.write('hello'); o.addTrailers({ 'x-sum': '1' }); o.end(); }));
await trying('http expect', () => request({ method: 'POST', path: '/echo', headers: { expect: '100-continue', 'content-length': 5 } }, (o) => o.on('continue', () => o.end('hello'))));
await trying('http early hints', () => request({ path: '/hints' }));
await trying('http large', () => request({ path: '/large' }));
await trying('http delete', () => request({ method: 'DELETE', path: '/echo' }));
await trying('http options', () => request({ method: 'OPTIONS', path: '/echo' }));
await trying('http keep-alive', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const answers = [];
  for (let at = 0; at < 20; at++) answers.push((await request({ path: `/echo?${at}`, agent })).status);
  agent.destroy();
  return answers;
});
await trying('http 50 at once', async () => (await Promise.all(Array.from({ length: 50 }, (_, at) => request({ path: `/echo?${at}` })))).map((one) => one.status));
await trying('http upgrade', () =>
  new Promise((resolve, reject) => {
    const outgoing = http.request({ host: '127.0.0.1', port: httpPort, path: '/switch', headers: { host, connection: 'Upgrade', upgrade: 'custom' } });
    outgoing.on('upgrade', (response, socket) => {
      socket.write('ping');
      socket.once('data', (data) => { socket.destroy(); resolve({ status: response.statusCode, data: data.toString() }); });
    });
    outgoing.on('response', ({ statusCode }) => resolve({ status: statusCode }));
    outgoing.on('error', reject);
    outgoing.end();
  }));

const url = `http://${host}:${httpPort}`;
const shown = async (response) => {
  const body = Buffer.from(await response.arrayBuffer());
  return { status: response.status, type: response.headers.get('content-type'), body: body.length < 400 ? body.toString() : digest(body) };
};
await trying('fetch get', async () => shown(await fetch(`${url}/echo?a=b`, { headers: { 'x-test': '1' } })));
await trying('fetch post', async () => shown(await fetch(`${url}/echo`, { method: 'POST', body: 'hello' })));
await trying('fetch form', async () => shown(await fetch(`${url}/echo`, { method: 'POST', body: new URLSearchParams({ a: 'b' }) })));
await trying('fetch stream', async () => shown(await fetch(`${url}/echo`, { method: 'POST', duplex: 'half', body: Readable.toWeb(Readable.from(['he', 'llo'].map((text) => Buffer.from(text)))) })));
await trying('fetch large', async () => shown(await fetch(`${url}/large`)));
await trying('fetch abort', async () => {
  const abort = new AbortController();
  const response = await fetch(`${url}/large`, { signal: abort.signal });
  abort.abort();
  await response.text();
});
await trying('fetch after abort', async () => shown(await fetch(`${url}/echo`)));

if (h2Port !== '0') {
  const session = http2.connect(`http://127.0.0.1:${h2Port}`);
  session.on('error', () => {});
  const ask = (headers, send = (stream) => stream.end()) =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ':authority': host, ...headers }, { endStream: false });
      const informational = [];
      let status;
      let trailers = {};
      stream.on('headers', (fields) => informational.push(fields[':status']));
      stream.on('response', (fields) => (status = fields[':status']));
      stream.on('trailers', (fields) => (trailers = { ...fields }));
      stream.on('error', reject);
      collect(stream).then((body) => resolve({ status, informational, trailers, body: body.length < 400 ? body.toString() : digest(body) }), reject);
      send(stream);
    });
  await trying('http2 get', () => ask({ ':path': '/echo?a=b', 'x-test': '1', cookie: ['a=b', 'c=d'] }));
  await trying('http2 post', () => ask({ ':method': 'POST', ':path': '/echo' }, (stream) => stream.end('hello')));
  await trying('http2 put 4 MiB', () => ask({ ':method': 'PUT', ':path': '/echo' }, (stream) => stream.end(Buffer.alloc(4 << 20, 7))));
  await trying('http2 large', () => ask({ ':path': '/large' }));
  await trying('http2 early hints', () => ask({ ':path': '/hints' }));
  await trying('http2 100 at once', async () => (await Promise.all(Array.from({ length: 100 }, (_, at) => ask({ ':path': `/echo?${at}` })))).map((one) => one.status));
  await trying('http2 cancel', () => new Promise((resolve) => {
    const stream = session.request({ ':authority': host, ':path': '/large' });
    stream.on('response', () => stream.close(http2.constants.NGHTTP2_CANCEL));
    stream.on('close', () => resolve(stream.rstCode));
    stream.on('error', () => {});
  }));
  await trying('http2 after cancel', async () => (await ask({ ':path': '/echo' })).status);
  await trying('http2 ping', () => new Promise((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve('pong')))));
  session.close();
}

const socket = (path, protocols) => new WebSocket(`ws://${wsHost}:${wsPort}${path}`, protocols);
const spoken = (path, messages, protocols) =>
  new Promise((resolve, reject) => {
    const ws = socket(path, protocols);
    const heard = [];
    ws.binaryType = 'arraybuffer';
    ws.onopen = () => messages.forEach((message) => ws.send(message));
    ws.onmessage = ({ data }) => {
      heard.push(typeof data === 'string' ? (data.length < 100 ? data : digest(data)) : `${data.byteLength}:${digest(Buffer.from(data))}`);
      if (heard.length === messages.length) ws.close(3001, 'bye');
    };
    ws.onerror = (event) => reject(new Error(event.message ?? event.error?.message ?? 'error'));
    ws.onclose = ({ code, reason, wasClean }) => resolve({ heard, code, reason, wasClean, protocol: ws.protocol });
  });
await trying('WebSocket text', () => spoken('/', ['hello', 'wörld', '']));
await trying('WebSocket binary', () => spoken('/', [new Uint8Array(1000), new Uint8Array(300_000).fill(7)]));
await trying('WebSocket 200 messages', async () => digest(JSON.stringify(await spoken('/', Array.from({ length: 200 }, (_, at) => `message ${at}`)))));
await trying('WebSocket protocol', () => spoken('/', ['x'], ['chat', 'superchat']));
await trying('WebSocket server closes', () => spoken('/close', ['x']));
await trying('WebSocket refused', () => spoken('/refused', ['x']));
process.exit(0);
