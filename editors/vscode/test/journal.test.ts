import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { WebSocketServer, type WebSocket } from 'ws';
import { Backlog } from '../src/backlog';
import { Journal, journalURL, lastSeq, type JournalState } from '../src/journal';

/** Agent is the agent's endpoint: it keeps what it was asked, and lets the test play each connection. */
class Agent {
  asked: { query: Record<string, string>; authorization: string; origin: string | undefined }[] = [];
  private waiting: ((ws: WebSocket) => void)[] = [];
  private there: WebSocket[] = [];
  readonly server = http.createServer();
  private constructor() {
    const sockets = new WebSocketServer({ server: this.server });
    sockets.on('connection', (ws, q) => {
      this.asked.push({ query: Object.fromEntries(new URL(q.url!, 'http://x').searchParams), authorization: q.headers.authorization ?? '', origin: q.headers.origin });
      const w = this.waiting.shift();
      if (w) w(ws);
      else this.there.push(ws);
    });
  }
  static async start(t: TestContext): Promise<Agent> {
    const a = new Agent();
    await new Promise<void>((r) => a.server.listen(0, '127.0.0.1', r));
    t.after(() => {
      a.server.closeAllConnections();
      a.server.close();
    });
    return a;
  }
  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/v1/services/orders/journal`;
  }
  connection(): Promise<WebSocket> {
    const ws = this.there.shift();
    return ws ? Promise.resolve(ws) : new Promise((r) => this.waiting.push(r));
  }
}

class Reader {
  got: string[] = [];
  private wake = (): void => {};
  states: JournalState[] = [];
  text = (s: string): void => this.add(s);
  restarted = (): void => this.add('RESTARTED');
  state = (s: JournalState): void => {
    this.states.push(s);
    if (s.state !== 'connecting' && s.state !== 'reading') this.add(s.state.toUpperCase());
  };
  private add(s: string): void {
    this.got.push(s);
    this.wake();
  }
  async until(n: number): Promise<string[]> {
    const late = setTimeout(() => this.wake(), 10_000);
    const end = Date.now() + 10_000;
    while (this.got.length < n && Date.now() < end) await new Promise<void>((r) => (this.wake = r));
    clearTimeout(late);
    assert.ok(this.got.length >= n, `only ${JSON.stringify(this.got)} came`);
    return this.got;
  }
}

const entry = (seq: number, o: object = {}): string => JSON.stringify({ seq, event: { type: 'log', text: `line ${seq}` }, ...o });
const fast = { first: 1, longest: 4 };

test('a lost connection is made anew after the last entry, with access asked for again', async (t) => {
  const agent = await Agent.start(t);
  const reader = new Reader();
  let n = 0;
  const j = new Journal(async () => ({ url: agent.url, token: `token${++n}` }), reader, undefined, fast);
  t.after(() => j.stop());
  j.start();
  const first = await agent.connection();
  first.send(`${entry(1, { journal: 'abc' })}\n${entry(2)}\n`);
  first.send(`${entry(3)}\n`);
  await reader.until(2);
  first.terminate();
  const second = await agent.connection();
  second.send(`${entry(4, { journal: 'abc' })}\n`);
  await reader.until(4);
  assert.deepEqual(reader.got, [`${entry(1, { journal: 'abc' })}\n${entry(2)}\n`, `${entry(3)}\n`, 'LOST', `${entry(4, { journal: 'abc' })}\n`]);
  assert.deepEqual(agent.asked.map((a) => a.query), [{ after: '0', logs: '1' }, { after: '3', logs: '1', journal: 'abc' }]);
  assert.deepEqual(agent.asked.map((a) => a.authorization), ['Bearer token1', 'Bearer token2']);
  assert.equal(agent.asked[0]!.origin, undefined);
  assert.equal(j.position.after, 4);
});

test('another journal is told before its entries', async (t) => {
  const agent = await Agent.start(t);
  const reader = new Reader();
  const j = new Journal(async () => ({ url: agent.url, token: 't' }), reader, { after: 900, journal: 'old' }, fast);
  t.after(() => j.stop());
  j.start();
  (await agent.connection()).send(`${entry(5, { journal: 'new', reset: true })}\n`);
  await reader.until(2);
  assert.equal(reader.got[0], 'RESTARTED');
  assert.deepEqual(j.position, { after: 5, journal: 'new' });
});

test('the end of the journal is the end', async (t) => {
  const agent = await Agent.start(t);
  const reader = new Reader();
  const j = new Journal(async () => ({ url: agent.url, token: 't' }), reader, undefined, fast);
  t.after(() => j.stop());
  j.start();
  const ws = await agent.connection();
  ws.send(`${entry(1)}\n`);
  ws.close(1000);
  assert.deepEqual((await reader.until(2)).slice(1), ['ENDED']);
  assert.equal(agent.asked.length, 1);
});

test('an access that is refused is asked for again, with the reason told', async (t) => {
  const agent = await Agent.start(t);
  const reader = new Reader();
  let n = 0;
  const j = new Journal(async () => {
    if (++n < 3) throw new Error('no such service');
    return { url: agent.url, token: 't' };
  }, reader, undefined, fast);
  t.after(() => j.stop());
  j.start();
  (await agent.connection()).send(`${entry(1)}\n`);
  await reader.until(3);
  assert.deepEqual(reader.states.filter((s) => s.state === 'lost'), [{ state: 'lost', reason: 'no such service' }, { state: 'lost', reason: 'no such service' }]);
});

test('a token goes to this machine only', () => {
  assert.equal(journalURL('http://127.0.0.1:1/x').href, 'ws://127.0.0.1:1/x');
  assert.equal(journalURL('ws://[::1]:1/x').hostname, '[::1]');
  for (const bad of ['http://example.com/x', 'https://127.0.0.1/', 'ws://127.0.0.1.example.com/', 'file:///x', '']) assert.throws(() => journalURL(bad), bad);
});

test('the last entry of a message', () => {
  assert.equal(lastSeq(`${entry(1)}\n${entry(7)}\n`), 7);
  assert.equal(lastSeq(entry(9)), 9);
  for (const bad of ['', '\n', 'x', '{"seq":"1"}', '{"seq":1e300}', 'null\n{']) assert.equal(lastSeq(bad), undefined, bad);
});

test('the backlog keeps what the view would, and counts the rest', () => {
  const b = new Backlog(10);
  for (let i = 1; i <= 9; i++) b.push(`${i}a\n${i}b\n`);
  assert.equal(b.size, 10);
  assert.deepEqual(b.take(), { texts: ['5a\n5b\n', '6a\n6b\n', '7a\n7b\n', '8a\n8b\n', '9a\n9b\n'], skipped: 8 });
  assert.equal(b.take(), undefined);
  b.push('one without an end');
  b.push('x'.repeat(900_000) + '\n');
  b.push('y'.repeat(900_000) + '\n');
  assert.equal(b.take()!.texts.length, 2);
  assert.equal(b.take()!.texts.length, 1);
  b.push('\n'.repeat(100));
  assert.equal(b.size, 100, 'the newest message stays, however long');
});
