// What the log view's page is made of, without the page.
import assert from 'node:assert/strict';
import { promises as fs } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { candidates, find } from '../src/links';
import { fromView } from '../src/messages';
import { same } from '../src/same';
import { pieces, plain } from '../webview/ansi';
import { Geometry } from '../webview/geometry';
import { links } from '../webview/link';
import { accepts, malformed, Rows, type Row } from '../webview/row';
import { Store } from '../webview/store';

test('links of a line', () => {
  for (const [text, want] of [
    ['main.go:12: hello', ['main.go 12 0']],
    ['./store/query.go:88:3: undefined: x', ['./store/query.go 88 3']],
    ['\t/home/ada/my shop/main.go:9 +0x1d', ['/home/ada/my shop/main.go 9 0']],
    ['\tC:/Users/ada/shop/main.go:9 +0x1d', ['C:/Users/ada/shop/main.go 9 0']],
    ['\t/root/go/pkg/mod/github.com/x/y@v1.2.3/z.go:7 +0x2', ['/root/go/pkg/mod/github.com/x/y@v1.2.3/z.go 7 0']],
    ['at example.com/shop/a.go:1 and b_test.go:22', ['example.com/shop/a.go 1 0', 'b_test.go 22 0']],
    ['see https://example.com/a_(b), or (http://x.test/q?a=1).', ['https://example.com/a_(b)', 'http://x.test/q?a=1']],
    ['http://x.test/main.go:12 is a web address', ['http://x.test/main.go:12']],
    ['javascript:alert(1) file:///etc/passwd main.go main.rs:12 .go:1', []],
  ] as [string, string[]][]) {
    assert.deepEqual(links(text).map((l) => l.url ?? `${l.file} ${l.line} ${l.column}`), want, text);
    for (const l of links(text)) assert.ok(l.from < l.to && l.to <= text.length);
  }
});

test('colours, and nothing else that an escape sequence can do', () => {
  assert.deepEqual(pieces('a\x1b[31mred\x1b[1mbold\x1b[0mz'), [
    { text: 'a', style: undefined }, { text: 'red', style: { fg: '1' } }, { text: 'bold', style: { fg: '1', bold: true } }, { text: 'z', style: undefined },
  ]);
  assert.deepEqual(pieces('\x1b[38;5;196mx')[0]!.style, { fg: 'rgb(255 0 0)' });
  assert.deepEqual(pieces('\x1b[38;2;1;2;3;48;5;4mx')[0]!.style, { fg: 'rgb(1 2 3)', bg: '4' });
  assert.deepEqual(pieces('\x1b[38;2;999;2;3mx')[0]!.style, undefined);
  assert.equal(plain('\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b[2J\x1b[?25lc\x07\x00d\te'), 'abcd\te');
  assert.equal(plain('\x1b]8;;unfinished'), '');
});

const read = (rows: Rows, ...entries: object[]): Row[] => {
  const out: Row[] = [];
  for (const e of entries) rows.read(JSON.stringify(e), out);
  return out;
};
const log = (text: string, line?: object, o: object = {}): object => ({ seq: 1, event: { type: 'log', generation: 1, stream: 'stderr', text, ...o }, ...(line ? { line } : {}) });

test('entries as rows', () => {
  const rows = new Rows();
  const out = read(rows,
    { event: { type: 'process', state: 'starting', generation: 2, time: '2026-11-23T03:00:00Z', digest: 'sha256:0123456789abcdef' } },
    { event: { type: 'ready', generation: 2, ms: 1820, url: 'http://127.0.0.1:1' } },
    { event: { type: 'ready', generation: 3, ms: 182 } },
    { ...log('{"msg":"hi"}', { level: 'warn', message: 'hi', attrs: [['a', '1'], ['bad'], 7] }), dropped: 1200 },
    { event: { type: 'environment', state: 'lost', reason: 'evicted' } },
    { event: { type: 'problem', message: 'undefined: x', file: '/w/main.go', line: 3, column: 2, hint: 'declare it' } },
    { event: { type: 'call', verdict: 'denied' }, line: { level: 'error', message: 'GET /x of billing is not granted: the call was refused', refused: { callee: 'billing', method: 'GET /x' } } },
    { event: { type: 'call', verdict: 'allowed' } },
    log('orders may not call GET /x of billing yet', { refused: { callee: 'billing', method: 'GET /x' } }), log('x', { refused: { callee: 7, method: 'GET /x' } }),
    { event: { type: 'transfer' } }, { event: { type: 'of a newer agent' } }, { mark: 'another journal' }, 7 as unknown as object, null as unknown as object);
  assert.deepEqual(out.map((r) => `${r.kind}: ${r.text}`), [
    'mark: Generation 2 starts · 0123456789ab',
    'mark: Generation 2 is live, 1.8 s after the start · http://127.0.0.1:1',
    'mark: Generation 3 is live, 182 ms after the save',
    'dropped: 1,200 lines dropped: this view could not keep up',
    'log: hi',
    'event: Connection lost: evicted',
    'problem: /w/main.go:3:2: undefined: x',
    'problem: GET /x of billing is not granted: the call was refused',
    'log: orders may not call GET /x of billing yet',
    'log: x',
    'mark: The environment was started again',
  ]);
  assert.deepEqual(out.map((r) => r.refused?.method), [undefined, undefined, undefined, undefined, undefined, undefined, undefined, 'GET /x', 'GET /x', undefined, undefined]);
  assert.equal(out[7]!.level, 5);
  assert.deepEqual(out[4]!.attrs, [['a', '1']]);
  assert.deepEqual(out.map((r) => r.id), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  rows.read('not json', out);
  assert.equal(out.at(-1)!.text, 'not json');
});

test('a panic\'s trace belongs to the panic', () => {
  const out = read(new Rows(), log('a'), log('panic: boom'), log(''), log('goroutine 1 [running]:'), log('other', undefined, { generation: 2 }), log('x', { process: 'pod/proxy' }), log('{}', { level: 'info' }), log('b'));
  assert.deepEqual(out.map((r) => r.level), [0, 6, 6, 6, 0, 0, 3, 0]);
});

test('the filter', () => {
  const rows = read(new Rows(), log('plain one'), log('{"msg":"two"}', { level: 'error', message: 'two' }), log('three', { level: 'debug', process: 'pod/proxy' }), { event: { type: 'process', state: 'starting', generation: 2 } });
  const pass = (o: object): number[] => rows.filter(accepts({ query: { text: '', regex: false, case: false }, level: 0, process: undefined, ...o }) ?? (() => true)).map((r) => r.id);
  const q = (text: string, o: object = {}): object => ({ query: { text, regex: false, case: false, ...o } });
  assert.deepEqual(pass({}), [0, 1, 2, 3]);
  assert.deepEqual(pass(q('ONE')), [0]);
  assert.deepEqual(pass(q('ONE', { case: true })), []);
  assert.deepEqual(pass(q('^plain|"two"', { regex: true })), [0, 1]);
  assert.deepEqual(pass(q('msg')), [1], 'what the service wrote, not only its message');
  assert.deepEqual(pass({ level: 3 }), [0, 1, 3], 'no level counts as information, marks stay');
  assert.deepEqual(pass({ level: 5 }), [1, 3]);
  assert.deepEqual(pass({ process: 'pod/proxy' }), [2, 3]);
  assert.equal(malformed({ text: '(', regex: true, case: false }), true);
});

test('the store throws the oldest away and keeps its place', () => {
  const store = new Store(100);
  const rows = new Rows();
  const add = (n: number): number => store.append(read(rows, ...Array.from({ length: n }, (_, i) => log(i % 10 === 0 ? 'ten' : 'other'))));
  assert.equal(add(100), 0);
  const run = store.filter((r) => r.text === 'ten');
  assert.equal(run.next().done, true);
  assert.deepEqual([store.count, store.total, store.at(3).id, store.index(25), store.isShown(30), store.isShown(31)], [10, 100, 30, 3, true, false]);
  assert.equal(add(50), 5, 'rows that were shown went');
  assert.deepEqual([store.total, store.firstId, store.count, store.at(0).id, store.byId(20)], [100, 50, 10, 50, undefined]);
  [...store.filter(undefined)];
  assert.deepEqual([store.count, store.index(60), store.at(10).id], [100, 10, 60]);
  store.clear(rows.nextId);
  assert.deepEqual([store.count, store.firstId], [0, 150]);
});

test('a filter is built in steps while lines come and go', () => {
  const store = new Store(5000);
  const rows = new Rows();
  const add = (n: number): void => void store.append(read(rows, ...Array.from({ length: n }, () => log('x'))));
  add(5000);
  const run = store.filter(() => true);
  run.next();
  add(3000);
  while (!run.next().done);
  assert.equal(store.count, store.total);
  for (let i = 0; i < store.count; i += 500) assert.equal(store.at(i).id, store.firstId + i);
});

test('opened rows move what is below them', () => {
  const g = new Geometry(20);
  g.open(3, 100);
  g.open(5, 40);
  g.settle(0, (id) => id);
  assert.deepEqual([0, 3, 4, 5, 6, 10].map((i) => g.top(i)), [0, 60, 180, 200, 260, 340]);
  for (let i = 0; i < 20; i++) assert.equal(g.at(g.top(i), 20), i);
  assert.deepEqual([g.at(179, 20), g.at(180, 20), g.at(-5, 20), g.at(1e9, 20)], [3, 4, 0, 19]);
  g.settle(4, (id) => id - 4);
  assert.equal(g.isOpen(3), false, 'what is gone is closed');
});

test('messages of the page are looked at', () => {
  assert.deepEqual(fromView({ type: 'open', file: 'a.go', line: 1, column: 0, evil: 1 }), { type: 'open', file: 'a.go', line: 1, column: 0 });
  assert.deepEqual(fromView({ type: 'access', callee: 'billing', method: 'GET /x', name: 'another' }), { type: 'access', callee: 'billing', method: 'GET /x' });
  for (const bad of [{ type: 'access', callee: 'billing' }, { type: 'access', callee: '', method: 'x' }, undefined, null, 7, 'ready', {}, { type: 'exec' }, { type: 'open', file: '', line: 1, column: 0 }, { type: 'open', file: 'a.go', line: -1, column: 0 }, { type: 'open', file: 'a.go', line: 1.5, column: 0 },
    { type: 'open', file: 'x'.repeat(5000), line: 1, column: 0 }, { type: 'url', url: 7 }, { type: 'taken' }, { type: 'select' }]) assert.equal(fromView(bad), undefined, JSON.stringify(bad));
});

test('the same finding', () => {
  const f = { line: 3, column: 1, error: true, message: 'undefined: x', source: 'fairlead' };
  assert.equal(same(f, { ...f, column: 9, source: 'compiler' }), true);
  assert.equal(same({ ...f, message: 'not enough arguments in call to f\n\thave ()\n\twant (int)' }, { ...f, message: 'not enough arguments in call to f\nhave ()' }), true);
  assert.equal(same(f, { ...f, line: 4 }), false);
  assert.equal(same(f, { ...f, error: false }), false);
  assert.equal(same(f, { ...f, message: 'undefined: y' }), false);
});

test('a link opens what is there and may be opened', async (t) => {
  const dir = await fs.realpath(await fs.mkdtemp(path.join(os.tmpdir(), 'fairlead-links-')));
  t.after(() => fs.rm(dir, { recursive: true }));
  const write = async (name: string, text = ''): Promise<string> => {
    await fs.mkdir(path.dirname(path.join(dir, name)), { recursive: true });
    await fs.writeFile(path.join(dir, name), text);
    return path.join(dir, name);
  };
  await write('shop/go.mod', 'module example.com/shop // the shop\n');
  const main = await write('shop/cmd/orders/main.go');
  const query = await write('shop/store/query.go');
  const dep = await write('mod/github.com/!ada/x@v1.2.3/y.go');
  const std = await write('goroot/src/runtime/panic.go');
  const secret = await write('secret.go');
  await fs.symlink(secret, path.join(dir, 'shop/link.go'));
  const roots = { folders: [path.join(dir, 'shop')], package: path.join(dir, 'shop/cmd/orders'), module: path.join(dir, 'shop'), goroot: path.join(dir, 'goroot'), modcache: path.join(dir, 'mod') };
  for (const [name, want] of [
    [main, main], ['main.go', main], ['store/query.go', query], ['./store/query.go', query], ['example.com/shop/store/query.go', query],
    ['github.com/Ada/x@v1.2.3/y.go', dep], [dep, dep], ['runtime/panic.go', std], [std, std],
    [secret, undefined], ['../secret.go', undefined], ['link.go', undefined], ['store', undefined], ['none.go', undefined], ['a\0b.go', undefined],
  ] as [string, string | undefined][]) assert.equal(await find(name, roots), want, name);
  assert.deepEqual(candidates('/a/../b.go', roots, ''), ['/b.go']);
});
