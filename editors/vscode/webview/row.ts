// From the journal's entries to rows of the view.

import { plain } from './ansi';

export type Kind = 'log' | 'mark' | 'event' | 'problem' | 'dropped';

export interface Row {
  id: number;
  kind: Kind;
  time: string;
  generation: number;
  level: number; // of levels; 0 if the line says none
  process: string;
  stderr: boolean;
  /** What is shown; may have ANSI sequences. */
  text: string;
  /** The line as the service wrote it. */
  raw: string;
  attrs: [string, string][] | undefined;
  /** The call that was refused, if access to it can be requested. */
  refused?: { callee: string; method: string };
  /** Milliseconds since the row's generation started, found when it is first drawn. */
  since?: number;
}

export const levels = ['', 'trace', 'debug', 'info', 'warn', 'error', 'fatal'];
const info = 3;
const fatal = 6;

type Obj = Record<string, unknown>;
const str = (v: unknown): string => (typeof v === 'string' ? v : '');
const num = (v: unknown): number => (typeof v === 'number' && Number.isFinite(v) ? v : 0);
const isObj = (v: unknown): v is Obj => typeof v === 'object' && v !== null;
const duration = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** Rows reads entries; it knows what came before, which some rows need. */
export class Rows {
  private next = 0;
  /** When each generation's process was started, by the pod's clock. */
  readonly started = new Map<number, number>();
  /** The process that is in the middle of a panic's trace. */
  private panicking = '';
  private empty = true;
  private ready = false;

  restart(): void {
    this.started.clear();
    this.panicking = '';
    this.empty = true;
    this.ready = false;
  }

  get nextId(): number {
    return this.next;
  }

  skipped(n: number): Row {
    return this.make('dropped', '', 0, `${count(n, 'older line')} left out: more than the view keeps`, 0);
  }

  /** read turns one entry into the rows that it is shown as. What cannot be read is shown as it came. */
  read(json: string, out: Row[]): void {
    if (json === '') return;
    let e: Obj;
    try {
      e = JSON.parse(json) as Obj;
    } catch {
      out.push(this.make('log', '', 0, json, 0));
      return;
    }
    if (!isObj(e)) return;
    if (typeof e.mark === 'string') {
      if (!this.empty) out.push(this.make('mark', '', 0, 'The environment was started again', 0));
      this.restart();
      return;
    }
    const v = isObj(e.event) ? e.event : {};
    const dropped = num(e.dropped) + num(v.dropped);
    if (dropped > 0) out.push(this.make('dropped', str(v.time), num(v.generation), `${count(dropped, 'line')} dropped: this view could not keep up`, 0));
    else if (e.reset === true && !this.empty) out.push(this.make('dropped', str(v.time), num(v.generation), 'Lines may be missing here: the journal began anew', 0));
    this.empty = false;
    const row = this.event(v, isObj(e.line) ? e.line : undefined);
    if (row) out.push(row);
  }

  private event(v: Obj, line: Obj | undefined): Row | undefined {
    const time = str(v.time);
    const gen = num(v.generation);
    switch (v.type) {
      case 'log':
        return this.log(v, line, time, gen);
      case 'process':
        return this.process(v, time, gen);
      case 'ready': {
        const url = str(v.url);
        const ms = num(v.ms);
        // The first is counted from the start.
        const since = this.ready ? 'the save' : 'the start';
        this.ready = true;
        return this.make('mark', time, gen, `Generation ${gen} is live${ms > 0 ? `, ${duration(ms)} after ${since}` : ''}${url ? ` · ${url}` : ''}`, info);
      }
      case 'environment':
        switch (v.state) {
          case 'lost':
            return this.make('event', time, gen, `Connection lost${str(v.reason) ? `: ${str(v.reason)}` : ''}`, 4);
          case 'connected':
            return this.make('event', time, gen, str(v.provider) === 'kubernetes' ? `Connected to ${[str(v.namespace), str(v.pod)].filter(Boolean).join('/')}` : 'Connected', info);
          case 'creating':
          case 'finding':
          case 'connecting':
          case 'stopping':
          case 'deleted':
          case 'stopped':
            return this.make('event', time, gen, `Environment: ${String(v.state)}${str(v.reason) ? `, ${str(v.reason)}` : ''}`, 2);
        }
        return undefined;
      case 'build':
        if (v.ok === true || v.canceled === true) return undefined;
        return this.make('event', time, gen, `Build ${gen} failed: what ran before goes on`, 5);
      case 'problem': {
        const at = str(v.file) ? `${str(v.file)}${num(v.line) ? `:${num(v.line)}${num(v.column) ? `:${num(v.column)}` : ''}` : ''}: ` : '';
        const level = str(v.severity) === 'warning' ? 4 : str(v.severity) === 'information' || str(v.severity) === 'info' || str(v.severity) === 'hint' ? info : 5;
        const row = this.make('problem', time, gen, at + str(v.message), level);
        if (str(v.hint)) row.attrs = [['hint', str(v.hint)]];
        return row;
      }
      case 'call': {
        if (!line || str(line.message) === '') return undefined;
        const row = this.make('problem', time, gen, str(line.message), Math.max(0, levels.indexOf(str(line.level))));
        return this.refused(row, line);
      }
      default:
        return undefined; // listening, transfer, and what a newer agent tells
    }
  }

  private process(v: Obj, time: string, gen: number): Row | undefined {
    this.panicking = '';
    switch (v.state) {
      case 'starting': {
        const at = Date.parse(time);
        if (!Number.isNaN(at)) this.started.set(gen, at);
        const digest = str(v.digest).replace(/^sha256:/, '').slice(0, 12);
        return this.make('mark', time, gen, `Generation ${gen} starts${digest ? ` · ${digest}` : ''}`, info);
      }
      case 'exited': {
        const code = typeof v.exit_code === 'number' ? v.exit_code : undefined;
        return this.make('event', time, gen, `The process ended${str(v.reason) ? `: ${str(v.reason)}` : code === undefined ? '' : ` with code ${code}`}`, code === 0 ? info : 5);
      }
      case 'failed':
        return this.make('event', time, gen, `The process could not be started${str(v.reason) ? `: ${str(v.reason)}` : ''}`, 5);
    }
    return undefined;
  }

  private log(v: Obj, line: Obj | undefined, time: string, gen: number): Row {
    const raw = str(v.text);
    let level = line ? levels.indexOf(str(line.level)) : 0;
    if (level < 0) level = 0;
    const process = line ? str(line.process) : '';
    // A panic's trace has no levels: all of it belongs to the panic, until something with a level comes.
    const key = `${process}/${gen}`;
    if (/^(panic|fatal error): /.test(raw)) {
      this.panicking = key;
      level = fatal;
    } else if (level === 0 && this.panicking === key) level = fatal;
    else if (level !== 0 && this.panicking === key) this.panicking = '';
    const row = this.make('log', time, gen, (line && str(line.message)) || raw, level);
    row.raw = raw;
    row.process = process;
    row.stderr = v.stream === 'stderr';
    if (line) this.refused(row, line);
    if (line && Array.isArray(line.attrs)) {
      const attrs = line.attrs.filter((a): a is [string, string] => Array.isArray(a) && typeof a[0] === 'string' && typeof a[1] === 'string');
      if (attrs.length > 0) row.attrs = attrs;
    }
    return row;
  }

  private refused(row: Row, line: Obj): Row {
    const c = isObj(line.refused) ? line.refused : {};
    if (str(c.callee) !== '' && str(c.method) !== '') row.refused = { callee: str(c.callee), method: str(c.method) };
    return row;
  }

  private make(kind: Kind, time: string, generation: number, text: string, level: number): Row {
    return { id: this.next++, kind, time, generation, level, process: '', stderr: false, text, raw: text, attrs: undefined };
  }
}

export const count = (n: number, what: string): string => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;

export interface Query {
  text: string;
  regex: boolean;
  case: boolean;
}

export type Matcher = (s: string) => boolean;

/** pattern makes a query a regular expression that finds all its places; nothing if there is none, or it is malformed. */
export function pattern(q: Query): RegExp | undefined {
  if (q.text === '') return undefined;
  try {
    return new RegExp(q.regex ? q.text : q.text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), q.case ? 'g' : 'gi');
  } catch {
    return undefined;
  }
}

export const malformed = (q: Query): boolean => q.text !== '' && pattern(q) === undefined;

export function matcher(q: Query): Matcher | undefined {
  if (q.text === '') return undefined;
  if (!q.regex && q.case) return (s) => s.includes(q.text);
  const p = pattern(q);
  if (!p) return undefined;
  const once = new RegExp(p.source, q.case ? '' : 'i');
  return (s) => once.test(s);
}

export interface Filter {
  query: Query;
  /** The lowest level to show; 0 for all. */
  level: number;
  /** undefined for all, '' for the service itself. */
  process: string | undefined;
}

/** search is what filter and find look in: the line as it was written, without colours. */
export const search = (r: Row): string => plain(r.kind === 'log' ? r.raw : r.attrs ? `${r.text} ${r.attrs[0]![1]}` : r.text);

export function accepts(f: Filter): ((r: Row) => boolean) | undefined {
  const m = matcher(f.query);
  if (!m && f.level === 0 && f.process === undefined) return undefined;
  return (r) => {
    if (m && !m(search(r))) return false;
    if (r.kind === 'mark' || r.kind === 'dropped') return true;
    // A line without a level counts as information.
    if ((r.level || info) < f.level) return false;
    return f.process === undefined || r.kind !== 'log' || r.process === f.process;
  };
}
