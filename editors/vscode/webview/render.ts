// A row as elements. Text gets into the page as text only: textContent and text nodes, never markup.

import { pieces, plain, type Style } from './ansi';
import { links, type Link } from './link';
import { levels, type Row } from './row';

export interface Look {
  times: 'off' | 'clock' | 'since';
  since(r: Row): string;
  /** What find and the filter look for, to be marked. */
  find: RegExp | undefined;
  filter: RegExp | undefined;
  findId: number | undefined;
  processes: boolean;
  open: boolean;
}

/** A longer text is cut in its row, and whole when it is opened. */
const longest = 2000;

export const canOpen = (r: Row): boolean => r.kind === 'log' && (r.attrs !== undefined || r.raw.length > 160);

const el = (tag: string, cls: string, text?: string): HTMLElement => {
  const e = document.createElement(tag);
  e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
};

export function clock(time: string): string {
  const t = new Date(time);
  if (Number.isNaN(t.getTime())) return '';
  const two = (n: number): string => String(n).padStart(2, '0');
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}.${String(t.getMilliseconds()).padStart(3, '0')}`;
}

/** draw fills a row's element. */
export function draw(e: HTMLElement, r: Row, look: Look): void {
  e.className = `row ${r.kind} l-${levels[r.level] || 'none'}${r.stderr ? ' stderr' : ''}${look.open ? ' open' : ''}`;
  const line = el('div', 'line');
  if (r.kind === 'mark') {
    line.append(el('span', 'rule'), text('label', r.text, look, r.id), el('span', 'at', clock(r.time)), el('span', 'rule'));
    e.replaceChildren(line);
    return;
  }
  const twist = el('span', 'twist');
  if (canOpen(r)) twist.classList.add('can');
  line.append(twist);
  if (look.times !== 'off') {
    const t = el('span', 'time', look.times === 'clock' ? clock(r.time) : look.since(r));
    t.title = r.time;
    line.append(t);
  }
  if (r.kind === 'log') {
    line.append(el('span', 'level', levels[r.level] ?? ''));
    if (look.processes && r.process !== '') line.append(el('span', 'process', r.process));
  } else line.append(el('span', 'level', r.kind === 'problem' ? (levels[r.level] ?? '') : ''));
  const cut = r.text.length > longest;
  line.append(text('text', cut ? r.text.slice(0, longest) : r.text, look, r.id));
  if (cut) line.append(el('span', 'more', `… ${(r.text.length - longest).toLocaleString('en')} more characters`));
  if (r.attrs && r.kind === 'log' && !cut) {
    const attrs = el('span', 'attrs');
    let room = 600;
    for (const [k, v] of r.attrs) {
      if ((room -= k.length + v.length) < 0) {
        attrs.append(el('span', 'more', '…'));
        break;
      }
      const a = el('span', 'attr');
      a.append(el('span', 'key', `${k}=`), text('value', plain(v), look, r.id));
      attrs.append(a, ' ');
    }
    line.append(attrs);
  } else if (r.attrs && r.kind === 'problem') line.append(el('span', 'hint', r.attrs[0]![1]));
  if (r.refused) {
    // Before the text: a long line is not to be scrolled for it.
    const a = document.createElement('a');
    a.className = 'link access';
    a.setAttribute('role', 'button');
    a.dataset.callee = r.refused.callee;
    a.dataset.method = r.refused.method;
    a.title = `Request access to ${r.refused.method} of ${r.refused.callee}`;
    a.textContent = 'Request access...';
    line.insertBefore(a, line.querySelector('.text'));
  }
  e.replaceChildren(line);
  if (look.open) e.append(detail(r, look));
}

/** detail is what an opened row shows below its line. */
function detail(r: Row, look: Look): HTMLElement {
  const d = el('div', 'detail');
  const grid = el('dl', 'grid');
  const add = (k: string, v: string, cls = ''): void => {
    if (v === '') return;
    grid.append(el('dt', '', k));
    const dd = el('dd', cls);
    dd.append(text('value', v, look, r.id));
    grid.append(dd);
  };
  if (r.text !== r.raw) add('message', plain(r.text));
  for (const [k, v] of r.attrs ?? []) add(k, plain(v));
  add('time', r.time, 'faint');
  add('generation', r.generation > 0 ? String(r.generation) : '', 'faint');
  add('process', r.process, 'faint');
  add('stream', r.stderr ? 'stderr' : 'stdout', 'faint');
  add('line', plain(r.raw), 'raw');
  d.append(grid);
  return d;
}

function text(cls: string, s: string, look: Look, id: number): HTMLElement {
  const out = el('span', cls);
  const parts = pieces(s);
  if (parts.length === 1 && !parts[0]!.style && !look.find && !look.filter && !s.includes('.go:') && !s.includes('://')) {
    out.textContent = parts[0]!.text;
    return out;
  }
  const whole = parts.map((p) => p.text).join('');
  const marks = [
    ...spans(look.filter, whole).map((m) => ({ ...m, cls: 'filtered' })),
    ...spans(look.find, whole).map((m) => ({ ...m, cls: look.findId === id ? 'found now' : 'found' })),
  ];
  const at = links(whole);
  const cuts = new Set<number>([0, whole.length]);
  for (const m of marks) cuts.add(m.from).add(m.to);
  let pos = 0;
  for (const p of parts) cuts.add((pos += p.text.length));
  const inLink = (from: number): Link | undefined => at.find((l) => from >= l.from && from < l.to);
  for (const l of at) cuts.add(l.from).add(l.to);
  const sorted = [...cuts].sort((a, b) => a - b);
  let part = 0;
  let partEnd = parts[0]?.text.length ?? 0;
  let anchor: { link: Link; e: HTMLElement } | undefined;
  for (let i = 0; i + 1 < sorted.length; i++) {
    const from = sorted[i]!;
    const to = sorted[i + 1]!;
    while (from >= partEnd && part + 1 < parts.length) partEnd += parts[++part]!.text.length;
    const s = el('span', marks.filter((m) => from >= m.from && from < m.to).map((m) => m.cls).join(' '), whole.slice(from, to));
    const style = parts[part]?.style;
    if (style) dress(s, style);
    const link = inLink(from);
    if (!link) {
      anchor = undefined;
      out.append(s);
      continue;
    }
    if (anchor?.link !== link) {
      const a = document.createElement('a');
      a.className = 'link';
      a.setAttribute('role', 'link');
      if (link.url) a.dataset.url = link.url;
      else {
        a.dataset.file = link.file;
        a.dataset.line = String(link.line);
        a.dataset.column = String(link.column ?? 0);
      }
      a.title = link.url ? `Open ${link.url}` : `Go to ${link.file}:${link.line}`;
      anchor = { link, e: a };
      out.append(a);
    }
    anchor.e.append(s);
  }
  return out;
}

function spans(p: RegExp | undefined, s: string): { from: number; to: number }[] {
  if (!p) return [];
  const out: { from: number; to: number }[] = [];
  p.lastIndex = 0;
  for (let m = p.exec(s); m && out.length < 200; m = p.exec(s)) {
    if (m[0] === '') {
      p.lastIndex++;
      continue;
    }
    out.push({ from: m.index, to: m.index + m[0].length });
  }
  return out;
}

const names = ['Black', 'Red', 'Green', 'Yellow', 'Blue', 'Magenta', 'Cyan', 'White'];
const color = (c: string): string => (/^\d+$/.test(c) ? `var(--vscode-terminal-ansi${Number(c) >= 8 ? 'Bright' : ''}${names[Number(c) % 8]})` : c);

function dress(e: HTMLElement, s: Style): void {
  let fg = s.fg && color(s.fg);
  let bg = s.bg && color(s.bg);
  if (s.inverse) [fg, bg] = [bg ?? 'var(--vscode-panel-background)', fg ?? 'var(--vscode-foreground)'];
  if (fg) e.style.color = fg;
  if (bg) e.style.backgroundColor = bg;
  if (s.bold) e.style.fontWeight = 'bold';
  if (s.dim) e.style.opacity = '0.7';
  if (s.italic) e.style.fontStyle = 'italic';
  const lines = [s.underline ? 'underline' : '', s.strike ? 'line-through' : ''].filter(Boolean).join(' ');
  if (lines) e.style.textDecoration = lines;
}
