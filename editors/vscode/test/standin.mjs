#!/usr/bin/env node
// A stand-in for the agent, for working on the extension without one: `standin.mjs lsp` speaks the language server protocol on
// stdio and plays a service's life. It holds the extension to the contract: what is sent in another shape is answered
// with an error. FAIRLEAD_STANDIN names a folder: what is received goes to received.jsonl there, a file "crash" ends it
// at the next start, "second" adds another service, "lines" says how many lines the service writes at its start.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const dir = process.env.FAIRLEAD_STANDIN ?? '';
const file = (name) => path.join(dir, name);
const has = (name) => dir !== '' && fs.existsSync(file(name));
const record = (o) => dir !== '' && fs.appendFileSync(file('received.jsonl'), JSON.stringify(o) + '\n');

if (has('crash')) {
  console.error('fairlead: error: the stand-in was told to end');
  console.error('fairlead: hint: remove the file');
  process.exit(1);
}
if (process.argv[2] !== 'lsp') {
  console.error('fairlead: error: only lsp is played');
  process.exit(2);
}

// ---- the wire

let rest = Buffer.alloc(0);
process.stdin.on('data', (b) => {
  rest = Buffer.concat([rest, b]);
  for (;;) {
    const end = rest.indexOf('\r\n\r\n');
    if (end < 0) return;
    const n = Number(/Content-Length: *(\d+)/i.exec(rest.subarray(0, end).toString())[1]);
    if (rest.length < end + 4 + n) return;
    const m = JSON.parse(rest.subarray(end + 4, end + 4 + n).toString());
    rest = rest.subarray(end + 4 + n);
    void receive(m);
  }
});
process.stdin.on('end', () => process.exit(0));
const send = (m) => {
  const b = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...m }));
  process.stdout.write(`Content-Length: ${b.length}\r\n\r\n`);
  process.stdout.write(b);
};
const notify = (method, params) => send({ method, params });
let lastId = 0;
const asked = new Map();
const ask = (method, params) => new Promise((resolve) => {
  asked.set(++lastId, resolve);
  send({ id: lastId, method, params });
});

class Refused extends Error {}
const must = (ok, what) => {
  if (!ok) throw new Refused(`contract: ${what}`);
};
const only = (o, ...names) => must(o && typeof o === 'object' && !Array.isArray(o) && Object.keys(o).every((k) => names.includes(k)), `one of ${names} in ${JSON.stringify(o)}`);

async function receive(m) {
  record(m);
  if (m.method === undefined) {
    asked.get(m.id)?.(m.result);
    asked.delete(m.id);
    return;
  }
  try {
    const result = await handle(m.method, m.params);
    if (m.id !== undefined) send({ id: m.id, result: result ?? null });
  } catch (err) {
    if (m.id !== undefined) send({ id: m.id, error: { code: err instanceof Refused ? -32602 : -32603, message: err.message } });
    else console.error(err.message);
  }
}

// ---- the language server

const documents = new Map();
const commands = ['run', 'stop', 'open', 'logs', 'cancel', 'restartAgent', 'details'].map((c) => `fairlead.${c}`);

async function handle(method, p) {
  switch (method) {
    case 'initialize':
      only(p.initializationOptions, 'openBrowser', 'on', 'codeLens', 'trusted');
      must(p.initializationOptions.trusted === true, 'a server is started in trusted workspaces only');
      must(p.capabilities.experimental?.fairlead === true, 'capabilities.experimental.fairlead');
      return {
        serverInfo: { name: 'fairlead', version: 'stand-in' },
        capabilities: {
          textDocumentSync: { openClose: true, change: 1, save: true }, codeLensProvider: {}, executeCommandProvider: { commands },
          workspace: { workspaceFolders: { supported: true, changeNotifications: true } },
        },
      };
    case 'initialized':
      setTimeout(() => {
        connected = true;
        tell();
      }, 300);
      return;
    case 'shutdown':
      return null;
    case 'exit':
      process.exit(0);
      break;
    case 'textDocument/didOpen':
      documents.set(p.textDocument.uri, p.textDocument.text);
      return;
    case 'textDocument/didChange':
      documents.set(p.textDocument.uri, p.contentChanges.at(-1).text);
      return;
    case 'textDocument/didSave':
      return saved(p.textDocument.uri);
    case 'textDocument/codeLens':
      return lenses(p.textDocument.uri);
    case 'workspace/executeCommand':
      must(commands.includes(p.command), `a command of ours, not ${p.command}`);
      must(p.arguments?.length === 1, 'one argument');
      return execute(p.command, p.arguments[0]);
    case 'fairlead/access':
      only(p, 'name');
      must(services.has(p.name), `a service ${p.name}`);
      return { url: `http://127.0.0.1:${port}/v1/services/${p.name}/journal`, token };
    case 'workspace/didChangeConfiguration':
      only(p.settings?.fairlead, 'openBrowser', 'on', 'codeLens', 'trusted');
      return;
  }
}

async function execute(command, a) {
  switch (command) {
    case 'fairlead.run': {
      only(a, 'uri', 'dir', 'main', 'on');
      const folder = a.uri ? path.dirname(fileURLToPath(a.uri)) : a.dir;
      must(folder && path.isAbsolute(folder), 'a file or a folder');
      const s = run(folder, a.on || 'local');
      if (has('second')) run(path.join(folder, 'cmd/stock'), 'kubernetes');
      return { name: s.name, joined: false };
    }
    case 'fairlead.stop':
      only(a, 'name');
      return stop(services.get(a.name));
    case 'fairlead.open': {
      only(a, 'name', 'port');
      return ask('window/showDocument', { uri: services.get(a.name).url, external: true, takeFocus: true });
    }
    case 'fairlead.cancel':
      only(a, 'name', 'what');
      must(['environment', 'build', 'transfer'].includes(a.what), `${a.what} can be canceled`);
      return;
    case 'fairlead.restartAgent':
      only(a);
      return;
    case 'fairlead.logs':
      throw new Refused('fairlead.logs is drawn by the extension');
  }
}

// ---- the agent

let connected = false;
const services = new Map();
const tell = () => notify('fairlead/services', { agent: connected ? { connected, version: 'stand-in' } : { connected }, services: [...services.values()].map((s) => s.told) });
const wait = (ms) => new Promise((r) => setTimeout(r, ms));

class Service {
  constructor(folder, provider) {
    const name = path.basename(folder).replace(/\W/g, '') || 'service';
    this.name = `${name}-ada-1a2b3c`;
    this.told = {
      name: this.name, service: name, provider, ...(provider === 'kubernetes' ? { context: 'staging', namespace: 'shop', pod: `${this.name}-7d9f`, template: `shop/${name}` } : {}),
      dir: folder, package: folder, module: folder, phase: 'opening', detail: 'waiting for the pod', since: now(), generation: 0, process: '', ports: [], clients: ['Visual Studio Code'], problems: [],
    };
    this.entries = [];
    this.readers = new Set();
    this.seq = 0;
    this.journal = Math.random().toString(36).slice(2);
  }
  get url() { return this.told.url; }
  set(o) {
    Object.assign(this.told, { detail: undefined }, o, { since: now() });
    tell();
  }
  event(event, line) {
    const e = JSON.stringify({ seq: ++this.seq, event: { generation: this.told.generation, time: now(), ...event }, ...(line ? { line } : {}) });
    this.entries.push(e);
    for (const r of this.readers) r();
  }
  log(text, line, stream = 'stdout') { this.event({ type: 'log', stream, text }, line); }
}
const now = () => new Date().toISOString();

function run(folder, provider) {
  const s = new Service(folder, provider);
  services.set(s.name, s);
  void (async () => {
    s.event({ type: 'environment', name: s.name, state: 'creating' });
    tell();
    await wait(300);
    s.event({ type: 'environment', name: s.name, provider, namespace: s.told.namespace, pod: s.told.pod, state: 'connected' });
    await generation(s, 1, 900);
    const lines = has('lines') ? Number(fs.readFileSync(file('lines'), 'utf8')) : 0;
    for (let i = 1; i <= lines; i++) slog(s, i);
    void play(s);
  })();
  return s;
}

async function generation(s, n, ms) {
  const token = `${s.name}-`;
  await ask('window/workDoneProgress/create', { token: `${token}${n}` });
  notify('$/progress', { token: `${token}${n}`, value: { kind: 'begin', title: `Building ${s.told.service}`, cancellable: true } });
  s.set({ phase: 'building', working: n, problems: [] });
  await wait(400);
  s.set({ phase: 'shipping', working: n });
  await wait(200);
  const digest = 'sha256:' + (n * 2654435761 % 2 ** 32).toString(16).padStart(8, '0').repeat(8);
  s.told.generation = n;
  s.set({ phase: 'starting', working: n, digest, process: 'starting', pid: 4100 + n });
  s.event({ type: 'process', state: 'starting', pid: 4100 + n, digest });
  s.log(`{"time":"${now()}","level":"INFO","msg":"listening","addr":":8080","version":${n}}`, { level: 'info', message: 'listening', attrs: [['addr', ':8080'], ['version', String(n)]] });
  await wait(200);
  const url = `http://127.0.0.1:${port}`;
  s.set({ phase: 'live', process: 'running', ms, url, ports: [{ port: 8080, local: port, url, main: true }, { port: 9090, local: port, url: `${url}/metrics` }] });
  s.event({ type: 'ready', url, ms });
  notify('$/progress', { token: `${token}${n}`, value: { kind: 'end' } });
  void ask('workspace/codeLens/refresh');
}

const samples = [
  (s, i) => slog(s, i),
  (s, i) => s.log(`{"level":"debug","ts":1700000000,"msg":"cache miss","key":"item:${i}"}`, { level: 'debug', message: 'cache miss', attrs: [['key', `item:${i}`]] }),
  (s, i) => s.log(`2026/11/23 03:20:28 main.go:${3 + (i % 20)}: plain line ${i} of log.Lshortfile`, undefined, 'stderr'),
  (s) => s.log('\x1b[32mGET\x1b[0m /orders \x1b[1;33m304\x1b[0m in \x1b[38;5;141m2.1ms\x1b[0m', undefined),
  (s, i) => s.log(`{"level":"warn","msg":"slow query","took":"1.2s","sql":"select * from orders where id = $1 and state = 'open' order by created desc limit 100","args":"[${i}]","caller":"store/query.go:88"}`,
    { level: 'warn', message: 'slow query', attrs: [['took', '1.2s'], ['sql', "select * from orders where id = $1 and state = 'open' order by created desc limit 100"], ['args', `[${i}]`], ['caller', 'store/query.go:88']] }),
  (s) => s.log('{"level":"error","msg":"payment refused","err":"rpc error: code = Unavailable desc = connection refused","order":"1042"}', { level: 'error', message: 'payment refused', attrs: [['err', 'rpc error: code = Unavailable desc = connection refused'], ['order', '1042']] }),
  (s) => s.log('<img src=x onerror="document.title=1"> is text, and so is <script>alert(1)</script>; see https://example.com/a_(b).', undefined),
  (s) => s.log('GET /healthz 200', { process: 'orders-7d9f/proxy' }),
];
const slog = (s, i) => s.log(`{"time":"${now()}","level":"INFO","msg":"order placed","order":${i},"customer":"ada","total":"12.50"}`, { level: 'info', message: 'order placed', attrs: [['order', String(i)], ['customer', 'ada'], ['total', '12.50']] });

async function play(s) {
  for (let i = 1; services.has(s.name); i++) {
    if (s.told.phase === 'live') samples[i % samples.length](s, i);
    if (i === 12) {
      s.log('panic: runtime error: index out of range [3] with length 3 [recovered]', { level: 'fatal' }, 'stderr');
      for (const l of ['', 'goroutine 1 [running]:', 'main.pick(...)', `\t${s.told.dir}/main.go:9 +0x1d`, 'main.main()', `\t${s.told.dir}/main.go:14 +0x57`]) s.log(l, undefined, 'stderr');
      s.log('{"level":"info","msg":"recovered"}', { level: 'info', message: 'recovered' });
    }
    await wait(120);
  }
}

async function saved(uri) {
  const from = fileURLToPath(uri);
  const s = [...services.values()].find((x) => from.startsWith(x.told.dir + path.sep));
  if (!s) return;
  const lines = (documents.get(uri) ?? '').split('\n');
  const bad = lines.findIndex((l) => l.includes('undefinedThing'));
  const at = lines[bad]?.indexOf('undefinedThing') ?? 0;
  notify('textDocument/publishDiagnostics', {
    uri, diagnostics: bad < 0 ? [] : [{ range: { start: { line: bad, character: at }, end: { line: bad, character: at + 14 } }, severity: 1, source: 'fairlead', message: 'undefined: undefinedThing' }],
  });
  if (bad < 0) {
    await generation(s, s.told.generation + 1, 182);
    return;
  }
  const problem = { code: 'build-failed', message: 'undefined: undefinedThing', file: from, line: bad + 1, column: at + 1, owner: 'build', hint: 'what ran before goes on' };
  s.event({ type: 'problem', ...problem });
  s.event({ type: 'build', ok: false, ms: 300 });
  s.set({ phase: 'failed', problems: [problem] });
}

async function stop(s) {
  s.set({ phase: 'stopping' });
  await wait(300);
  s.told.phase = 'ended';
  services.delete(s.name);
  s.ended = true;
  for (const r of s.readers) r();
  tell();
}

function lenses(uri) {
  const lines = (documents.get(uri) ?? '').split('\n');
  const line = lines.findIndex((l) => l.startsWith('func main('));
  if (line < 0) return [];
  const at = (title, command, arg) => ({ range: { start: { line, character: 0 }, end: { line, character: 4 } }, command: { title, command, arguments: [arg] } });
  const s = [...services.values()].find((x) => fileURLToPath(uri).startsWith(x.told.dir + path.sep));
  if (!s) return [at('▶ Run in environment', 'fairlead.run', { uri })];
  return [at(s.told.phase, 'fairlead.details', { name: s.name }), at('Open in browser', 'fairlead.open', { name: s.name }), at('Logs', 'fairlead.logs', { name: s.name }), at('Stop', 'fairlead.stop', { name: s.name })];
}

// ---- the journal

const token = Math.random().toString(36).slice(2);
const server = http.createServer((q, r) => r.end('<h1>hello</h1>'));
const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (q, socket, head) => {
  const u = new URL(q.url, 'http://127.0.0.1');
  const s = services.get(u.pathname.split('/')[3]);
  if (!s || q.headers.authorization !== `Bearer ${token}` || q.headers.origin) {
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(q, socket, head, (ws) => {
    const same = (u.searchParams.get('journal') ?? '') === '' || u.searchParams.get('journal') === s.journal;
    let after = same ? Number(u.searchParams.get('after')) : 0;
    let first = true;
    let due = false;
    const flush = () => {
      due = false;
      if (ws.readyState !== ws.OPEN) return;
      while (after < s.entries.length) {
        const run = s.entries.slice(after, after + 400);
        if (first) run[0] = JSON.stringify({ ...JSON.parse(run[0]), journal: s.journal, ...(same ? {} : { reset: true }) });
        first = false;
        after += run.length;
        ws.send(run.join('\n') + '\n');
      }
      if (s.ended) ws.close(1000);
    };
    const wake = () => {
      if (due) return;
      due = true;
      setImmediate(flush);
    };
    s.readers.add(wake);
    ws.on('close', () => s.readers.delete(wake));
    wake();
  });
});
let port = 0;
server.listen(0, '127.0.0.1', () => {
  port = server.address().port;
});
