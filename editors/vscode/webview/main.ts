// The log view's page. What comes from the host waits in a queue and is taken once per animation frame, for a part of
// the frame only; only the rows that are seen have elements. Between frames nothing runs.

import type { FromView, ToView } from '../src/messages';
import { Geometry } from './geometry';
import { plain } from './ansi';
import { canOpen, clock, draw, type Look } from './render';
import { accepts, count, levels, malformed, matcher, pattern, Rows, search, type Filter, type Query, type Row } from './row';
import { Store } from './store';

interface Saved {
  query?: Query;
  level?: number;
  process?: string | null;
  times?: Look['times'];
  follow?: boolean;
}

declare function acquireVsCodeApi(): { postMessage(m: FromView): void; getState(): Saved | undefined; setState(s: Saved): void };

const host = acquireVsCodeApi();
const rowHeight = 20;
/** How long of a frame's 16 ms may be spent on taking what came. */
const budget = 6;

// ---- the page

const make = <K extends keyof HTMLElementTagNameMap>(tag: K, cls: string, attrs: Record<string, string> = {}, text?: string): HTMLElementTagNameMap[K] => {
  const e = document.createElement(tag);
  e.className = cls;
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
};

function svg(path: string): SVGElement {
  const s = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  s.setAttribute('viewBox', '0 0 16 16');
  s.setAttribute('aria-hidden', 'true');
  const p = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  p.setAttribute('d', path);
  s.append(p);
  return s;
}

const icons = {
  down: 'M8 13.2 2.8 8l.9-.9L7.4 10.8V2.5h1.2v8.3l3.7-3.7.9.9z',
  up: 'M8 2.8 13.2 8l-.9.9-3.7-3.7v8.3H7.4V5.2L3.7 8.9 2.8 8z',
  close: 'm8 7.1 3.6-3.6.9.9L8.9 8l3.6 3.6-.9.9L8 8.9l-3.6 3.6-.9-.9L7.1 8 3.5 4.4l.9-.9z',
  pause: 'M4.5 3h2v10h-2zm5 0h2v10h-2z',
  play: 'M4.5 2.8 12.5 8l-8 5.2z',
};

const toggle = (label: string, title: string): HTMLButtonElement => make('button', 'toggle', { type: 'button', title, 'aria-label': title, 'aria-pressed': 'false' }, label);
const button = (icon: string, title: string): HTMLButtonElement => {
  const b = make('button', 'icon', { type: 'button', title, 'aria-label': title });
  b.append(svg(icon));
  return b;
};

const service = make('select', 'service', { 'aria-label': 'Service' });
const filterText = make('input', 'filter', { type: 'text', placeholder: 'Filter', 'aria-label': 'Filter lines', spellcheck: 'false' });
const filterCase = toggle('Aa', 'Match case');
const filterRegex = toggle('.*', 'Use a regular expression');
const level = make('select', 'level', { 'aria-label': 'Lowest level' });
const process = make('select', 'process', { 'aria-label': 'Process' });
const summary = make('span', 'summary', { role: 'status' });
const follow = make('button', 'follow', { type: 'button' });
const box = (...e: HTMLElement[]): HTMLElement => {
  const b = make('span', 'box');
  b.append(...e);
  return b;
};
const toolbar = make('div', 'toolbar', { role: 'toolbar', 'aria-label': 'Log' });
toolbar.append(service, box(filterText, filterCase, filterRegex), level, process, summary, follow);

const findText = make('input', 'find', { type: 'text', placeholder: 'Find', 'aria-label': 'Find', spellcheck: 'false' });
const findCase = toggle('Aa', 'Match case');
const findRegex = toggle('.*', 'Use a regular expression');
const findCount = make('span', 'count', { role: 'status' });
const findPrev = button(icons.up, 'Previous match (Shift+Enter)');
const findNext = button(icons.down, 'Next match (Enter)');
const findClose = button(icons.close, 'Close (Escape)');
const findBar = make('div', 'findbar', { role: 'search', hidden: '' });
findBar.append(box(findText, findCase, findRegex), findCount, findPrev, findNext, findClose);

const list = make('div', 'list', { role: 'listbox', tabindex: '0', 'aria-label': 'Log lines', 'aria-multiselectable': 'true' });
const space = make('div', 'space', { role: 'presentation' });
list.append(space);
const jump = make('button', 'jump', { type: 'button', hidden: '' });
const blank = make('div', 'blank');
const notice = make('div', 'notice', { role: 'alert', hidden: '' });
const spoken = make('div', 'spoken', { 'aria-live': 'polite' });
const main = make('div', 'main');
main.append(list, blank, jump, findBar, notice, spoken);
document.body.append(toolbar, main);

for (const [value, name] of [[0, 'All levels'], [2, 'Debug and up'], [3, 'Info and up'], [4, 'Warnings and up'], [5, 'Errors']] as const) level.append(new Option(name, String(value)));

// ---- state

const saved = host.getState() ?? {};
let rows = new Rows();
const store = new Store(200_000);
const geo = new Geometry(rowHeight);
const filter: Filter = { query: saved.query ?? { text: '', regex: false, case: false }, level: saved.level ?? 0, process: saved.process ?? undefined };
let times: Look['times'] = saved.times ?? 'clock';
let following = saved.follow ?? true;
let stream = -1;
let current = '';
let known: { name: string; label: string; phase: string }[] = [];
let state: { state: string; text: string } = { state: 'none', text: '' };
let unseen = 0;
let cursor: number | undefined;
let anchor: number | undefined;
const processes = new Set<string>();

const findQuery: Query = { text: '', regex: false, case: false };
let found: number[] = [];
let foundAt: number | undefined; // a row's number
let finder: ((r: Row) => boolean) | undefined;

filterText.value = filter.query.text;
level.value = String(filter.level);

function save(): void {
  host.setState({ query: filter.query, level: filter.level, process: filter.process ?? null, times, follow: following });
}

// ---- the queue, and the frame

interface Queued {
  text: string;
  at: number; // how far it has been read
  last: boolean; // of its run: the host hears of it
  skipped: number;
}
let queue: Queued[] = [];
/** Work on all rows, in steps; one after the other. */
const jobs: Generator<void, void>[] = [];
let dirty = true;
let redraw = true;
let scheduled = false;

function schedule(all = false): void {
  dirty = true;
  redraw ||= all;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

function frame(): void {
  scheduled = false;
  const until = performance.now() + budget;
  const fresh: Row[] = [];
  while (queue.length > 0) {
    const q = queue[0]!;
    if (q.skipped > 0) {
      fresh.push(rows.skipped(q.skipped));
      q.skipped = 0;
    }
    let n = 0;
    while (q.at < q.text.length) {
      let end = q.text.indexOf('\n', q.at);
      if (end < 0) end = q.text.length;
      rows.read(q.text.slice(q.at, end), fresh);
      q.at = end + 1;
      if ((++n & 31) === 0 && performance.now() > until) break;
    }
    if (q.at < q.text.length) break;
    queue.shift();
    if (q.last) host.postMessage({ type: 'taken', stream });
    if (performance.now() > until) break;
  }
  if (fresh.length > 0) append(fresh);
  while (jobs.length > 0 && performance.now() < until + 2) {
    if (jobs[0]!.next().done) jobs.shift();
  }
  if (dirty || redraw) paint();
  if (queue.length > 0 || jobs.length > 0) schedule();
}

function append(fresh: Row[]): void {
  let more = false;
  for (const r of fresh) {
    if (r.kind === 'log' && !processes.has(r.process)) {
      processes.add(r.process);
      more = true;
    }
  }
  if (more) listProcesses();
  const before = store.count;
  const gone = store.append(fresh);
  if (finder) for (const r of fresh) if (finder(r) && store.isShown(r.id)) found.push(r.id);
  if (found.length > 0 && found[0]! < store.firstId) found = found.filter((id) => id >= store.firstId);
  if (!following) {
    unseen += store.count - before + gone;
    // What is looked at stays where it is while the oldest rows go.
    if (gone > 0) move(Math.max(0, list.scrollTop - gone * rowHeight));
  }
  dirty = true;
}

// ---- drawing

const pool = new Map<number, HTMLElement>(); // by row number
let drawn = 0; // what the elements of the pool look like: grows when all must be drawn anew
let look = 0;
let widest = 0;
let moved = 0; // where we have scrolled to ourselves
let charWidth = 7.2;
let opened: number | undefined; // a row whose detail is to be brought into sight

function since(r: Row): string {
  if (r.since === undefined) {
    const start = rows.started.get(r.generation);
    const t = Date.parse(r.time);
    if (start === undefined || Number.isNaN(t)) return '';
    r.since = t - start;
  }
  const ms = r.since;
  const sign = ms < 0 ? '-' : '+';
  const a = Math.abs(ms);
  return a < 60_000 ? `${sign}${(a / 1000).toFixed(3)}s` : `${sign}${Math.floor(a / 60_000)}m${String(Math.floor((a % 60_000) / 1000)).padStart(2, '0')}s`;
}

function move(y: number): void {
  list.scrollTop = y;
  moved = list.scrollTop;
}

function paint(): void {
  dirty = false;
  if (redraw) {
    look++;
    redraw = false;
  }
  geo.settle(store.firstId, (id) => (store.isShown(id) ? store.index(id) : undefined));
  const total = store.count;
  const height = geo.top(total);
  const view = list.clientHeight;
  space.style.height = `${height}px`;
  if (following) move(height);
  const top = list.scrollTop;
  const from = Math.max(0, geo.at(top, total) - 8);
  const to = Math.min(total, geo.at(top + view, total) + 9);
  const keep = new Set<number>();
  const find = findBar.hidden ? undefined : pattern(findQuery);
  const filtered = pattern(filter.query);
  for (let i = from; i < to; i++) {
    const r = store.at(i);
    keep.add(r.id);
    let e = pool.get(r.id);
    if (!e) {
      e = make('div', 'row', { role: 'option', id: `r${r.id}` });
      e.dataset.id = String(r.id);
      pool.set(r.id, e);
      space.append(e);
    }
    if (e.dataset.look !== String(look)) {
      e.dataset.look = String(look);
      draw(e, r, { times, since, find, filter: filtered, findId: foundAt, processes: processes.size > 1, open: geo.isOpen(r.id) });
      widest = Math.max(widest, Math.min(r.raw.length + 40, 2400));
    }
    const y = `translateY(${geo.top(i)}px)`;
    if (e.style.transform !== y) e.style.transform = y;
    e.setAttribute('aria-posinset', String(i + 1));
    e.setAttribute('aria-setsize', String(total));
    const selected = isSelected(r.id);
    if ((e.getAttribute('aria-selected') === 'true') !== selected) e.setAttribute('aria-selected', String(selected));
    e.classList.toggle('cursor', r.id === cursor);
  }
  for (const [id, e] of pool) {
    if (keep.has(id)) continue;
    e.remove();
    pool.delete(id);
  }
  const width = `${Math.ceil(widest * charWidth)}px`;
  if (space.style.minWidth !== width) space.style.minWidth = width;
  measure();
  status();
  drawn++;
}

/** measure takes the heights of opened rows that are seen; one that is not what was thought moves what is below it. */
function measure(): void {
  let changed = false;
  for (const [id, e] of pool) {
    if (!geo.isOpen(id)) continue;
    const extra = Math.max(0, e.offsetHeight - rowHeight);
    if (Math.abs(extra - geo.extraOf(id)) > 0.5) {
      geo.open(id, extra);
      changed = true;
    }
  }
  if (changed) schedule();
  else if (opened !== undefined && geo.isOpen(opened)) {
    const top = geo.top(store.index(opened));
    const below = top + rowHeight + geo.extraOf(opened) - list.scrollTop - list.clientHeight;
    if (below > 0) move(Math.min(top, list.scrollTop + below));
    opened = undefined;
    if (below > 0) schedule();
  }
}

let lastSummary = '';
function status(): void {
  const n = store.count;
  const text = store.filtered ? `${n.toLocaleString('en')} of ${count(store.total, 'line')}` : count(n, 'line');
  const where = state.state === 'lost' ? `not connected: ${state.text}` : state.state === 'connecting' ? 'connecting…' : state.state === 'ended' ? 'ended' : '';
  const s = where ? `${text} · ${where}` : text;
  if (s !== lastSummary) {
    summary.textContent = lastSummary = s;
    summary.title = s;
  }
  summary.classList.toggle('lost', state.state === 'lost');
  toolbar.classList.toggle('none', known.length === 0 && store.total === 0);
  if (jump.hidden !== (following || n === 0)) jump.hidden = following || n === 0;
  if (!jump.hidden) {
    const label = unseen > 0 ? `${count(unseen, 'new line')}` : 'Jump to the end';
    if (jump.dataset.label !== label) {
      jump.dataset.label = label;
      jump.replaceChildren(svg(icons.down), label);
    }
  }
  fillBlank(n);
}

let blankKind = '';
function fillBlank(n: number): void {
  const kind = n > 0 ? '' : store.total > 0 ? 'filter' : known.length === 0 ? 'none' : 'wait';
  if (kind === blankKind) return;
  blankKind = kind;
  blank.hidden = kind === '';
  list.setAttribute('tabindex', kind === '' ? '0' : '-1');
  const act = (label: string, f: () => void): HTMLElement => {
    const b = make('button', 'primary', { type: 'button' }, label);
    b.addEventListener('click', f);
    return b;
  };
  if (kind === 'filter') blank.replaceChildren(make('p', '', {}, 'No line passes the filter.'), act('Clear Filter', clearFilter));
  else if (kind === 'none') blank.replaceChildren(make('p', '', {}, 'Nothing runs. A service\'s log is here as soon as it does.'), act('Run in Environment', () => host.postMessage({ type: 'run' })));
  else if (kind === 'wait') blank.replaceChildren(make('p', '', {}, 'The service has written nothing yet.'));
  else blank.replaceChildren();
}

function setFollow(on: boolean): void {
  if (on) unseen = 0;
  const changed = on !== following;
  following = on;
  follow.replaceChildren(svg(on ? icons.pause : icons.play), on ? 'Pause' : 'Follow');
  follow.title = on ? 'Stay where you are while lines come in' : 'Go to the end and stay there (End)';
  if (changed) {
    save();
    say(on ? 'Following' : 'Paused');
  }
  schedule();
}

let sayTimer: ReturnType<typeof setTimeout> | undefined;
function say(text: string): void {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => {
    spoken.textContent = text;
  }, 150);
}

let noticeTimer: ReturnType<typeof setTimeout> | undefined;
function tell(text: string): void {
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => {
    notice.hidden = true;
  }, 4000);
}

// ---- filter

function listProcesses(): void {
  const names = [...processes].sort();
  process.hidden = names.length < 2;
  process.replaceChildren(new Option('All processes', '*'), ...names.map((p) => new Option(p === '' ? 'The service' : p, `=${p}`)));
  process.value = filter.process === undefined ? '*' : `=${filter.process}`;
  if (process.selectedIndex < 0) process.value = '*';
  redraw = true;
}

let filterJob = 0;
function refilter(): void {
  save();
  filterText.classList.toggle('bad', malformed(filter.query));
  filterText.setAttribute('aria-invalid', String(malformed(filter.query)));
  filterCase.setAttribute('aria-pressed', String(filter.query.case));
  filterRegex.setAttribute('aria-pressed', String(filter.query.regex));
  toolbar.classList.toggle('filtering', filter.query.text !== '' || filter.level > 0 || filter.process !== undefined);
  // The row that is at the top stays at the top, if the filter leaves it.
  const at = store.count > 0 && !following ? store.at(geo.at(list.scrollTop, store.count)).id : undefined;
  const n = ++filterJob;
  const run = store.filter(accepts(filter));
  jobs.push((function* () {
    while (!run.next().done) {
      yield;
      if (n !== filterJob) return;
    }
    unseen = 0;
    research();
    if (at !== undefined) {
      geo.settle(store.firstId, (id) => (store.isShown(id) ? store.index(id) : undefined));
      space.style.height = `${geo.top(store.count)}px`;
      move(geo.top(store.index(at)));
    }
    if (store.filtered) say(count(store.count, 'line'));
    dirty = redraw = true;
  })());
  schedule();
}

function clearFilter(): void {
  filter.query = { text: '', regex: false, case: false };
  filter.level = 0;
  filter.process = undefined;
  filterText.value = '';
  level.value = '0';
  process.value = '*';
  refilter();
}

// ---- find

let findJob = 0;
function research(): void {
  const n = ++findJob;
  found = [];
  const m = findBar.hidden ? undefined : matcher(findQuery);
  finder = m ? (r) => m(search(r)) : undefined;
  findText.classList.toggle('bad', malformed(findQuery));
  findCase.setAttribute('aria-pressed', String(findQuery.case));
  findRegex.setAttribute('aria-pressed', String(findQuery.regex));
  if (!finder) {
    foundAt = undefined;
    showFound();
    schedule(true);
    return;
  }
  const test = finder;
  let i = 0;
  jobs.push((function* () {
    if (n !== findJob) return;
    // What comes in meanwhile is looked at by append, which stops here at the rows that there were.
    const end = store.endId;
    const hits: number[] = [];
    for (; i < store.count; i++) {
      const r = store.at(i);
      if (r.id >= end) break;
      if (test(r)) hits.push(r.id);
      if ((i & 511) === 511) {
        yield;
        if (n !== findJob) return;
      }
    }
    found = [...hits, ...found.filter((id) => id >= end)];
    if (foundAt === undefined && found.length > 0) {
      // The nearest at or above the end of what is seen.
      const bottom = store.count > 0 ? store.at(geo.at(list.scrollTop + list.clientHeight - 1, store.count)).id : 0;
      goFound(found.findLast((id) => id <= bottom) ?? found[0]!);
    }
    showFound();
    dirty = redraw = true;
  })());
  schedule(true);
}

function showFound(): void {
  const i = foundAt === undefined ? -1 : found.indexOf(foundAt);
  findCount.textContent = findQuery.text === '' ? '' : malformed(findQuery) ? 'Not a regular expression' : found.length === 0 ? 'No results' : i >= 0 ? `${(i + 1).toLocaleString('en')} of ${found.length.toLocaleString('en')}` : count(found.length, 'result');
}

function goFound(id: number): void {
  foundAt = id;
  showFound();
  if (following) setFollow(false);
  reveal(id);
  schedule(true);
}

function nextFound(step: 1 | -1): void {
  if (found.length === 0) return;
  const i = foundAt === undefined ? -1 : found.indexOf(foundAt);
  goFound(found[(i + step + found.length) % found.length]!);
}

function openFind(): void {
  const was = findBar.hidden;
  findBar.hidden = false;
  const selected = document.getSelection()?.toString() ?? '';
  if (was && selected !== '' && !selected.includes('\n')) {
    findText.value = findQuery.text = selected;
    findQuery.regex = false;
  }
  findText.focus();
  findText.select();
  if (was) research();
}

function closeFind(): void {
  findBar.hidden = true;
  foundAt = undefined;
  research();
  list.focus();
}

function reveal(id: number): void {
  const i = store.index(id);
  const top = geo.top(i);
  if (top < list.scrollTop || top + rowHeight * 2 > list.scrollTop + list.clientHeight) move(Math.max(0, top - list.clientHeight / 2));
}

// ---- rows: cursor, selection, opening

function isSelected(id: number): boolean {
  if (cursor === undefined || anchor === undefined) return false;
  return id >= Math.min(cursor, anchor) && id <= Math.max(cursor, anchor);
}

function place(id: number | undefined, extend = false): void {
  cursor = id;
  if (!extend) anchor = id;
  else anchor ??= id;
  if (id === undefined) list.removeAttribute('aria-activedescendant');
  else {
    if (following && id !== store.at(store.count - 1).id) setFollow(false);
    const i = store.index(id);
    const top = geo.top(i);
    const bottom = top + rowHeight + geo.extraOf(id);
    if (top < list.scrollTop) move(top);
    else if (bottom > list.scrollTop + list.clientHeight) move(bottom - list.clientHeight);
    list.setAttribute('aria-activedescendant', `r${id}`);
  }
  schedule();
}

function toggleOpen(id: number, open = !geo.isOpen(id)): void {
  const r = store.byId(id);
  if (!r || !canOpen(r) || open === geo.isOpen(id)) return;
  if (open) geo.open(id, 0);
  else geo.close(id);
  opened = open ? id : undefined;
  if (following && open) setFollow(false);
  const e = pool.get(id);
  if (e) e.dataset.look = '';
  schedule();
}

/** picked is the text of the rows that are selected; without any, of all that are shown. */
function picked(all: boolean): string {
  const out: string[] = [];
  const a = all || cursor === undefined ? 0 : store.index(Math.min(cursor, anchor ?? cursor));
  const b = all || cursor === undefined ? store.count : store.index(Math.max(cursor, anchor ?? cursor)) + 1;
  for (let i = a; i < Math.min(b, store.count); i++) {
    const r = store.at(i);
    out.push(r.kind === 'log' ? plain(r.raw) : `--- ${clock(r.time)} ${plain(r.text)}`.replace(/ {2,}/g, ' '));
  }
  return out.join('\n') + (out.length > 1 ? '\n' : '');
}

function clear(): void {
  store.clear(rows.nextId);
  geo.clear();
  pool.forEach((e) => e.remove());
  pool.clear();
  found = [];
  foundAt = cursor = anchor = undefined;
  unseen = widest = 0;
  showFound();
  setFollow(true);
}

function followLink(e: HTMLElement): void {
  const { url, file, line, column, callee, method } = e.dataset;
  if (callee && method) host.postMessage({ type: 'access', callee, method });
  else if (url) host.postMessage({ type: 'url', url });
  else if (file) host.postMessage({ type: 'open', file, line: Number(line), column: Number(column) });
}

// ---- what the user does

list.addEventListener('scroll', () => {
  const top = list.scrollTop;
  const end = top + list.clientHeight >= list.scrollHeight - 3;
  if (Math.abs(top - moved) > 1) {
    // Not ours: the user's.
    if (!end && following && top < moved) setFollow(false);
    else if (end && !following) setFollow(true);
    moved = top;
  }
  schedule();
}, { passive: true });
list.addEventListener('wheel', (e) => {
  if (e.deltaY < 0 && following && list.scrollHeight > list.clientHeight) setFollow(false);
}, { passive: true });
new ResizeObserver(() => schedule()).observe(list);

list.addEventListener('click', (e) => {
  const t = e.target as HTMLElement;
  const link = t.closest<HTMLElement>('a.link');
  if (link) {
    followLink(link);
    return;
  }
  const row = t.closest<HTMLElement>('.row');
  if (!row) return;
  const id = Number(row.dataset.id);
  if (t.closest('.twist.can')) {
    toggleOpen(id);
    return;
  }
  // A drag that marked text is no click on a row.
  if (!document.getSelection()?.isCollapsed) return;
  if (t.closest('.detail')) return;
  place(id, e.shiftKey);
});
list.addEventListener('mousedown', (e) => {
  if (e.shiftKey) e.preventDefault();
});
list.addEventListener('dblclick', (e) => {
  const row = (e.target as HTMLElement).closest<HTMLElement>('.row');
  if (row && (e.target as HTMLElement).closest('.twist, .time, .level')) toggleOpen(Number(row.dataset.id));
});

/** taken keeps a key here: what bubbles up to the window, the workbench would take as its own keybinding too. */
function taken(e: Event): void {
  e.preventDefault();
  e.stopPropagation();
}

list.addEventListener('keydown', (e) => {
  const n = store.count;
  if (n === 0 || e.altKey) return;
  const page = Math.max(1, Math.floor(list.clientHeight / rowHeight) - 1);
  const mod = e.ctrlKey || e.metaKey;
  if (mod && e.key.toLowerCase() === 'a') {
    anchor = store.at(0).id;
    place(store.at(n - 1).id, true);
    taken(e);
    return;
  }
  if (mod && e.key !== 'Home' && e.key !== 'End') return;
  const seen = store.at(geo.at(following ? list.scrollHeight : list.scrollTop + list.clientHeight / 2, n)).id;
  const i = cursor !== undefined && cursor >= store.firstId ? store.index(cursor) : undefined;
  const go = (to: number): void => {
    place(store.at(Math.min(n - 1, Math.max(0, to))).id, e.shiftKey);
    taken(e);
  };
  switch (e.key) {
    case 'ArrowDown':
      return go(i === undefined ? store.index(seen) : i + 1);
    case 'ArrowUp':
      return go(i === undefined ? store.index(seen) : i - 1);
    case 'PageDown':
      return go((i ?? store.index(seen)) + page);
    case 'PageUp':
      return go((i ?? store.index(seen)) - page);
    case 'Home':
      return go(0);
    case 'End':
      go(n - 1);
      return setFollow(true);
    case 'ArrowRight':
      if (cursor !== undefined) toggleOpen(cursor, true);
      taken(e);
      return;
    case 'ArrowLeft':
      if (cursor !== undefined) toggleOpen(cursor, false);
      taken(e);
      return;
    case 'Enter': {
      const link = cursor === undefined ? null : pool.get(cursor)?.querySelector<HTMLElement>('a.link');
      if (link) followLink(link);
      else if (cursor !== undefined) toggleOpen(cursor);
      return;
    }
    case ' ':
      setFollow(!following);
      taken(e);
      return;
    case 'Escape':
      place(undefined);
  }
});

document.addEventListener('keydown', (e) => {
  if ((e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey && e.key.toLowerCase() === 'f') {
    openFind();
    taken(e);
  } else if (e.key === 'F3') {
    if (findBar.hidden) openFind();
    else nextFound(e.shiftKey ? -1 : 1);
    taken(e);
  }
});

document.addEventListener('copy', (e) => {
  const target = e.target as HTMLElement;
  if (target.closest?.('input') || !document.getSelection()?.isCollapsed || cursor === undefined) return;
  e.clipboardData?.setData('text/plain', picked(false));
  e.preventDefault();
});

let filterTimer: ReturnType<typeof setTimeout> | undefined;
filterText.addEventListener('input', () => {
  filter.query = { ...filter.query, text: filterText.value };
  clearTimeout(filterTimer);
  filterTimer = setTimeout(refilter, 80);
});
filterText.addEventListener('keydown', (e) => {
  if (e.key === 'Escape') {
    if (filterText.value === '') list.focus();
    else {
      filterText.value = '';
      filter.query = { ...filter.query, text: '' };
      refilter();
    }
  }
  if (e.key === 'ArrowDown' || e.key === 'Enter') list.focus();
});
filterCase.addEventListener('click', () => {
  filter.query = { ...filter.query, case: !filter.query.case };
  refilter();
});
filterRegex.addEventListener('click', () => {
  filter.query = { ...filter.query, regex: !filter.query.regex };
  refilter();
});
level.addEventListener('change', () => {
  filter.level = Number(level.value);
  refilter();
});
process.addEventListener('change', () => {
  filter.process = process.value === '*' ? undefined : process.value.slice(1);
  refilter();
});
service.addEventListener('change', () => host.postMessage({ type: 'select', name: service.value }));
follow.addEventListener('click', () => setFollow(!following));
jump.addEventListener('click', () => {
  setFollow(true);
  list.focus();
});

let findTimer: ReturnType<typeof setTimeout> | undefined;
const findChanged = (): void => {
  foundAt = undefined;
  clearTimeout(findTimer);
  findTimer = setTimeout(research, 80);
};
findText.addEventListener('input', () => {
  findQuery.text = findText.value;
  findChanged();
});
findText.addEventListener('keydown', (e) => {
  if (e.key === 'Enter') nextFound(e.shiftKey ? -1 : 1);
});
findBar.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape') return;
  closeFind();
  e.stopPropagation();
});
findCase.addEventListener('click', () => {
  findQuery.case = !findQuery.case;
  findChanged();
});
findRegex.addEventListener('click', () => {
  findQuery.regex = !findQuery.regex;
  findChanged();
});
findPrev.addEventListener('click', () => nextFound(-1));
findNext.addEventListener('click', () => nextFound(1));
findClose.addEventListener('click', closeFind);

// ---- what the host says

window.addEventListener('message', (e: MessageEvent<ToView>) => {
  const m = e.data;
  switch (m?.type) {
    case 'services': {
      known = m.services;
      current = m.current;
      store.max = m.maxLines;
      const gone = current !== '' && !known.some((s) => s.name === current);
      service.hidden = known.length + (gone ? 1 : 0) < 2;
      service.replaceChildren(...known.map((s) => new Option(label(s), s.name)), ...(gone ? [new Option(`${current} (ended)`, current)] : []));
      service.value = current;
      list.setAttribute('aria-label', `Log of ${known.find((s) => s.name === current)?.label ?? 'the service'}`);
      break;
    }
    case 'begin':
      stream = m.stream;
      queue = [];
      rows = nextRows(rows);
      processes.clear();
      listProcesses();
      clear();
      break;
    case 'texts':
      if (m.stream !== stream) return;
      m.texts.forEach((text, i) => queue.push({ text, at: 0, last: i === m.texts.length - 1, skipped: i === 0 ? m.skipped : 0 }));
      break;
    case 'state':
      state = m;
      break;
    case 'notice':
      tell(m.text);
      break;
    case 'command':
      command(m.command);
  }
  schedule();
});

/** Two services of one name are told apart by their environments' names. */
const label = (s: { name: string; label: string }): string => (known.filter((k) => k.label === s.label).length > 1 ? `${s.label} (${s.name})` : s.label);

/** Row numbers go on: an element or a match of the old rows is never taken for one of the new. */
function nextRows(old: Rows): Rows {
  old.restart();
  return old;
}

function command(c: string): void {
  switch (c) {
    case 'find':
      return openFind();
    case 'filter':
      filterText.focus();
      filterText.select();
      return;
    case 'clear':
      return clear();
    case 'follow':
      return setFollow(!following);
    case 'timestamps':
      times = times === 'clock' ? 'since' : times === 'since' ? 'off' : 'clock';
      save();
      say(times === 'clock' ? 'Times of day' : times === 'since' ? 'Times since the generation started' : 'No times');
      return schedule(true);
    case 'copy':
      host.postMessage({ type: 'copy', text: picked(true) });
      tell(`Copied ${count(store.count, 'line')}`);
  }
}

// ---- start

const probe = make('span', 'probe', {}, 'm'.repeat(100));
list.append(probe);
charWidth = probe.getBoundingClientRect().width / 100 || charWidth;
probe.remove();
service.hidden = process.hidden = true;
setFollow(following);
refilter();
host.postMessage({ type: 'ready' });

// For the page's own test: what it measures and could not see from outside.
Object.assign(window, { fairleadLogs: { rows: () => store.total, shown: () => store.count, elements: () => pool.size, queued: () => queue.length, painted: () => drawn, levels } });
