import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toReviewPlan, toServices, type ReviewPlan, type Service, type Services } from '../src/protocol';
import { changeText, debugText, dependencyText, details, escape, isWeb, keptText, otherMode, reviewNotes, reviewRows, reviewText, reviewTitle, serviceOf, short, shown, status, switchWarning, type Client } from '../src/text';

const service = (o: object): Service => toServices({ agent: { connected: true }, services: [{ name: 'orders-ada-1', service: 'orders', provider: 'local', dir: '/w/orders', ...o }] }).services[0]!;
const all = (...s: Service[]): Services => ({ agent: { connected: true }, services: s });
const running: Client = { state: 'running' };

test('the status bar', () => {
  const problem = { code: 'build-failed', message: 'undefined: x', file: '/w/orders/main.go', line: 12, column: 5 };
  for (const [name, client, services, text, tone] of [
    ['untrusted', { state: 'untrusted' }, all(), '$(shield) Fairlead: restricted', 'plain'],
    ['starting', { state: 'starting' }, all(), '$(loading~spin) Fairlead: starting agent', 'plain'],
    ['crashed', { state: 'crashed', reason: 'no such file' }, all(), '$(error) Fairlead: no such file', 'error'],
    ['the agent is on its way', running, { agent: { connected: false }, services: [] }, '$(loading~spin) Fairlead: starting agent', 'plain'],
    ['no agent', running, { agent: { connected: false, problem: { code: 'x', message: 'another version' } }, services: [] }, '$(debug-disconnect) Fairlead: no agent: another version', 'warning'],
    ['nothing runs', running, all(), '$(run) Fairlead: run', 'plain'],
    ['opening', running, all(service({ phase: 'opening', detail: 'pulling the image' })), '$(loading~spin) orders: opening: pulling the image', 'plain'],
    ['building', running, all(service({ phase: 'building' })), '$(loading~spin) orders: building', 'plain'],
    ['shipping', running, all(service({ phase: 'shipping' })), '$(loading~spin) orders: shipping', 'plain'],
    ['live', running, all(service({ phase: 'live', ms: 182 })), '$(pass-filled) orders: live in 182 ms', 'plain'],
    ['live, slowly', running, all(service({ phase: 'live', ms: 2410 })), '$(pass-filled) orders: live in 2.4 s', 'plain'],
    ['live again', running, all(service({ phase: 'live' })), '$(pass-filled) orders: live', 'plain'],
    ['in the debugger', running, all(service({ phase: 'live', ms: 182, debug: { by: 'x', ready: true, on_save: 'continue' } })), '$(pass-filled) orders: live in 182 ms', 'plain'],
    ['at a breakpoint', running, all(service({ phase: 'live', ms: 182, debug: { by: 'x', ready: true, stopped: true, on_save: 'continue' } })), '$(debug-pause) orders: stopped in the debugger', 'plain'],
    ['a save waits', running, all(service({ phase: 'waiting', debug: { by: 'x', ready: true, stopped: true, on_save: 'continue', waiting: 3 } })), '$(debug-pause) orders: built, waits: stopped in the debugger', 'warning'],
    ['a save waits for a word', running, all(service({ phase: 'waiting', debug: { by: 'x', ready: true, on_save: 'never', waiting: 3 } })), '$(debug-pause) orders: built, waits until you restart or swap it in', 'warning'],
    ['failed', running, all(service({ phase: 'failed', problems: [problem] })), '$(error) orders: failed: main.go:12:5: undefined: x', 'error'],
    ['down', running, all(service({ phase: 'down', exit_code: 2 })), '$(debug-stop) orders: down: exit code 2', 'error'],
    ['lost', running, all(service({ phase: 'lost', detail: 'the pod was evicted' })), '$(debug-disconnect) orders: disconnected: the pod was evicted', 'warning'],
    ['a phase of a newer agent', running, all(service({ phase: 'sleeping', detail: 'unused' })), '$(loading~spin) orders: opening: unused', 'plain'],
    ['two', running, all(service({ phase: 'live' }), service({ name: 'b', service: 'stock', phase: 'down', detail: 'exit code 1' })), '$(debug-stop) stock: down: exit code 1 (+1)', 'error'],
  ] as [string, Client, Services, string, string][]) {
    const s = status(client, services, undefined);
    assert.deepEqual([s.text, s.tone], [text, tone], name);
  }
});

test('the status bar speaks of the active file\'s service', () => {
  const a = service({ name: 'a', service: 'orders', phase: 'live', package: '/w/cmd/orders', module: '/w' });
  const b = service({ name: 'b', service: 'stock', phase: 'failed', package: '/w/cmd/stock', module: '/w' });
  assert.equal(shown([a, b], '/w/cmd/orders/main.go'), a);
  assert.equal(shown([a, b], '/elsewhere/main.go'), b);
  assert.equal(serviceOf([a, b], '/w/cmd/ordersx/main.go')?.module, '/w');
  assert.equal(serviceOf([a, b], '/w2/main.go'), undefined);
  const outer = service({ name: 'o', module: '/w' });
  const inner = service({ name: 'i', module: '/w/inner' });
  assert.equal(serviceOf([outer, inner], '/w/inner/x.go'), inner);
});

test('a debug session in words', () => {
  const debug = (o?: object): string => debugText(service({ phase: 'live', ...(o ? { debug: { by: 'VS Code', on_save: 'continue', ...o } } : {}) }));
  assert.deepEqual(
    [debug(), debug({}), debug({ ready: true }), debug({ ready: true, stopped: true }), debug({ stopped: true, waiting: 4 }), debug({ stopped: true, waiting: 4, on_save: 'never' })],
    ['', 'is being prepared', 'runs', 'stopped', 'stopped; generation 4 waits until you continue', 'stopped; generation 4 waits until you restart or stop'],
  );
  assert.match(details(service({ phase: 'live', debug: { by: 'the debugger of nvim', ready: true } })), /Debugger \| runs \\\(the debugger of nvim\\\)/);
  // What is no debug session is none, and an empty path is no core file.
  const s = service({ debug: null, core: '' });
  assert.deepEqual(['debug' in s, 'core' in s], [false, false]);
});

test('what comes from the agent is made whole', () => {
  assert.deepEqual(toServices(null), { agent: { connected: false }, services: [] });
  assert.deepEqual(toServices({ agent: 7, services: [1, null, {}, { name: 3 }] }), { agent: { connected: false }, services: [] });
  const s = toServices({ agent: { connected: true, version: 'v', problem: 'why' }, services: [{ name: 'x', phase: 'live', ports: [{ port: 1 }], clients: null, problems: [{}, { message: 'm' }] }] });
  assert.deepEqual(s.agent, { connected: true, version: 'v', problem: { code: '', message: 'why' } });
  assert.deepEqual(s.services[0]!.clients, []);
  assert.deepEqual(s.services[0]!.problems, [{ code: '', message: 'm' }]);
  assert.equal(s.services[0]!.service, 'x');
  // Nobody needs to see one that ended as it was asked to.
  assert.equal(toServices({ services: [{ name: 'x', phase: 'ended' }] }).services.length, 0);
  assert.equal(toServices({ services: [{ name: 'x', phase: 'ended', problems: [{ message: 'evicted' }] }] }).services.length, 1);
});

test('nothing that is said becomes markup', () => {
  const md = details(service({ phase: 'failed', url: 'javascript:alert(1)', detail: '[click](command:evil) <b>| `x`', problems: [{ message: '![i](http://x)\n\n# y', hint: '$(zap)' }] }));
  assert.doesNotMatch(md, /[^\\]\[click\]|[^\\]<b>|\]\(command|javascript:|[^\\]!\[/);
  assert.match(md, /\\\$\\\(zap\\\)/);
  assert.equal(escape('a|b'), 'a\\|b');
  assert.deepEqual(['http://127.0.0.1:1', 'https://x', 'javascript:1', 'command:x', 'file:///etc', 'x'].map(isWeb), [true, true, false, false, false, false]);
  assert.equal(short('a\nb  c'), 'a b c');
  assert.equal([...short('ü'.repeat(100), 10)].length, 10);
});

test('what a dependency can be switched to, and what that costs', () => {
  const s = (o: object): Service => service({ provider: 'kubernetes', phase: 'live', dependencies: [{ name: 'db', mode: 'shared', workload: 'StatefulSet/db', why: [] }, { name: 'mq', mode: 'shared', why: [] }, { name: 'api.example.com', mode: 'external', why: [] }, { name: 'redis', mode: 'fresh', workload: 'Deployment/redis', why: [] }], ...o });
  const to = (o: object): string[] => s(o).dependencies.map((d) => otherMode(s(o), d));
  assert.deepEqual(to({}), ['fresh', '', '', 'shared']);
  for (const o of [{ provider: 'local' }, { joined: true, owner: 'ann@laptop' }, { phase: 'stopping' }]) assert.deepEqual(to(o), ['', '', '', ''], JSON.stringify(o));
  const [db, , , redis] = s({}).dependencies;
  assert.match(switchWarning(s({}), redis!), /copy of redis is removed, with its data/);
  assert.match(switchWarning(s({}), db!), /other copies \(redis\) are replaced/);
  assert.equal(switchWarning({ ...s({}), dependencies: [db!] }, db!), '');
});

test('an environment that was joined says whose it is', () => {
  assert.match(details(service({ phase: 'live', joined: true, owner: 'ann@laptop' })), /Owner \| ann@laptop; followed from here/);
  assert.doesNotMatch(details(service({ phase: 'live', owner: 'ann@laptop' })), /Owner/);
});

test('a dependency in a row', () => {
  const [d] = toServices({ services: [{ name: 'x', dependencies: [{ name: 'db', mode: 'fresh', engine: 'postgresql', health: 'failed', detail: 'ImagePullBackOff', why: ['DSN', 5] }, { mode: 'shared' }, 7] }] }).services[0]!.dependencies;
  assert.deepEqual(d!.why, ['DSN']);
  assert.equal(dependencyText(d!), 'fresh · postgresql · failed: ImagePullBackOff');
  assert.equal(dependencyText({ ...d!, engine: '', health: 'ready' }), 'fresh · ready');
});

test('how long an environment is kept', () => {
  const now = new Date(2026, 10, 26, 9, 0);
  assert.equal(keptText(service({}), now), '');
  assert.equal(keptText(service({ keep: true }), now), 'kept');
  assert.equal(keptText(service({ keep_until: new Date(2026, 10, 26, 8, 0).toISOString() }), now), '', 'it is over');
  assert.match(keptText(service({ keep_until: new Date(2026, 10, 26, 18, 30).toISOString() }), now), /^kept until (18:30|06:30 PM)$/);
  assert.match(keptText(service({ keep_until: new Date(2026, 10, 29, 18, 30).toISOString() }), now), /^kept until .*29.*(18:30|06:30 PM)$/);
});

test('what a plan of a review says, in rows and words', () => {
  const plan = (o: object): ReviewPlan => toReviewPlan({ dir: '/w/shop', state: 's1', branch: 'fix-total', base: 'main', forge: 'Gitea (team/shop)', commits: [], ...o });
  assert.throws(() => toReviewPlan({ dir: '/w/shop' }), /did not say what the review would be/, 'a plan that cannot be agreed to');
  assert.equal(reviewTitle(plan({ new: true })), 'Create Draft Review: new branch fix-total for main on Gitea (team/shop)');
  assert.equal(reviewTitle(plan({ new: true, message: 'fix the total', title: 'fix the total' }), 'round the total\n\nMore.'), 'Create Draft Review: a new branch for main on Gitea (team/shop)');
  assert.equal(reviewTitle(plan({ new: true, message: 'fix the total', title: 'fix the total' }), 'fix the total\n\nMore.'), 'Create Draft Review: new branch fix-total for main on Gitea (team/shop)');
  assert.equal(reviewTitle(plan({ existing: { number: 7, url: 'http://x/7' } })), 'Update Review #7: fix-total for main on Gitea (team/shop)');
  const p = plan({
    commits: [{}, {}], behind: 2, changes: [{ path: 'a.go', kind: 'modified', staged: true, picked: true }, { kind: 'untracked' }, 'x'], notes: ['the clone is shallow', 7],
    reviewers: [{ name: 'Jo', login: 'jo', why: 'wrote it' }, { name: 'Al', why: 'reviewed you' }, { name: 'Bo', login: 'bo', why: 'owns it', required: true, asked: true }], teams: [{ name: 'payments', why: 'owns billing/' }, {}],
  });
  assert.equal(p.commits, 2);
  assert.deepEqual(p.changes.map((c) => [c.path, changeText(c), c.picked]), [['a.go', 'modified, staged', true]]);
  // Those who must be asked come first, and who has no login is not offered; no row begins ticked.
  assert.deepEqual(reviewRows(p), [
    { label: '$(shield) Bo', description: 'bo · must be asked · asked already', detail: 'owns it', login: 'bo' },
    { label: '$(organization) payments', description: 'team · must be asked', detail: 'owns billing/', team: 'payments' },
    { label: '$(account) Jo', description: 'jo', detail: 'wrote it', login: 'jo' },
  ]);
  assert.equal(reviewNotes(p), 'the clone is shallow. main has 2 commits that fix-total lacks. could review too, but not by a login that is known here: Al (reviewed you)');
  assert.equal(reviewNotes(plan({ new: true, behind: 1 })), 'main has 1 commit that this work tree lacks');
  assert.equal(reviewNotes(plan({})), '');
  assert.equal(reviewText(service({ review: { number: 7, url: 'http://x/7', title: 'Fix total', draft: true } }).review!), 'Draft review #7');
  assert.equal(reviewText({ number: 0, url: 'http://x', title: '', draft: false }), 'Review');
  assert.equal(service({ review: { number: 7 } }).review, undefined, 'a review without a page');
});
