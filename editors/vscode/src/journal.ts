// Journal reads one service's journal from the agent by websocket, on loopback: it resumes after the last entry that it
// has (server/journal/doc.go has the wire), asks for access anew at every attempt (a restarted agent has another port and
// token), and waits longer from attempt to attempt. It knows nothing of VS Code. What it hands on is text as it came, a run of entries with one JSON
// object a line: parsing 100,000 lines a second is the view's work and not the extension host's.

import WebSocket from 'ws';
import type { Access } from './protocol';

export type JournalState =
  | { state: 'connecting' }
  | { state: 'reading' }
  | { state: 'lost'; reason: string }
  | { state: 'ended' };

export interface JournalEvents {
  /** text is a run of entries, in order. */
  text(text: string): void;
  /** restarted tells that what follows does not continue what came before: another session, or the agent was restarted. */
  restarted(): void;
  state(s: JournalState): void;
}

/** Position names an entry: the sequence numbers of another journal, of an agent that was started again, mean nothing here. */
export interface Position {
  after: number;
  journal: string;
}

const firstWait = 200;
const longestWait = 5000;

export class Journal {
  private socket: WebSocket | undefined;
  private timer: NodeJS.Timeout | undefined;
  private wait = firstWait;
  private stopped = false;

  constructor(
    private readonly access: () => Promise<Access>,
    private readonly events: JournalEvents,
    /** position is where to go on; it moves with what is read. */
    readonly position: Position = { after: 0, journal: '' },
    private readonly waits = { first: firstWait, longest: longestWait },
  ) {
    this.wait = waits.first;
  }

  start(): void {
    void this.connect();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.socket?.removeAllListeners();
    // An error after terminate() would otherwise have no listener and end the extension host.
    this.socket?.on('error', () => {});
    this.socket?.terminate();
    this.socket = undefined;
  }

  /** wake tries at once when it is waiting: the agent just said something about the service. */
  wake(): void {
    if (this.timer === undefined || this.stopped) return;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.wait = this.waits.first;
    void this.connect();
  }

  private async connect(): Promise<void> {
    this.timer = undefined;
    this.events.state({ state: 'connecting' });
    let access: Access;
    let url: URL;
    try {
      access = await this.access();
      url = journalURL(access.url);
    } catch (err) {
      this.retry(err instanceof Error ? err.message : String(err));
      return;
    }
    if (this.stopped) return;
    url.searchParams.set('after', String(this.position.after));
    url.searchParams.set('logs', '1');
    if (this.position.journal) url.searchParams.set('journal', this.position.journal);
    const ws = new WebSocket(url, {
      headers: { Authorization: `Bearer ${access.token}` },
      perMessageDeflate: false,
      followRedirects: false,
      handshakeTimeout: 10_000,
      maxPayload: 16 << 20,
    });
    this.socket = ws;
    let reason = '';
    let first = true;
    ws.on('open', () => {
      this.wait = this.waits.first;
      this.events.state({ state: 'reading' });
    });
    ws.on('message', (data) => {
      const text = String(data);
      if (first) {
        first = false;
        const head = firstEntry(text);
        if (head.reset === true && this.position.after > 0) this.events.restarted();
        if (typeof head.journal === 'string') this.position.journal = head.journal;
      }
      const last = lastSeq(text);
      if (last !== undefined) this.position.after = last;
      this.events.text(text);
    });
    ws.on('error', (err) => {
      reason = err.message;
    });
    ws.on('close', (code, said) => {
      if (this.stopped || this.socket !== ws) return;
      this.socket = undefined;
      if (code === 1000) {
        this.events.state({ state: 'ended' });
        return;
      }
      this.retry(reason || String(said) || `the connection was closed (${code})`);
    });
  }

  private retry(reason: string): void {
    if (this.stopped) return;
    this.events.state({ state: 'lost', reason });
    this.timer = setTimeout(() => void this.connect(), this.wait);
    this.wait = Math.min(this.wait * 2, this.waits.longest);
  }
}

/** journalURL takes only an address on loopback: the token is for the agent of this machine. */
export function journalURL(s: string): URL {
  const u = new URL(s.replace(/^http/, 'ws'));
  if (u.protocol !== 'ws:' || !['127.0.0.1', 'localhost', '[::1]'].includes(u.hostname)) throw new Error(`the journal's address ${u.host} is not on this machine`);
  return u;
}

function firstEntry(text: string): { reset?: unknown; journal?: unknown } {
  const end = text.indexOf('\n');
  try {
    return (JSON.parse(end < 0 ? text : text.slice(0, end)) as object | null) ?? {};
  } catch {
    return {};
  }
}

/** lastSeq is the sequence number of a message's last entry; one that cannot be read is asked for again. */
export function lastSeq(text: string): number | undefined {
  let end = text.length;
  while (end > 0 && text.charCodeAt(end - 1) <= 32) end--;
  const start = text.lastIndexOf('\n', end - 1) + 1;
  try {
    const seq = (JSON.parse(text.slice(start, end)) as { seq?: unknown }).seq;
    return typeof seq === 'number' && Number.isSafeInteger(seq) && seq > 0 ? seq : undefined;
  } catch {
    return undefined;
  }
}
