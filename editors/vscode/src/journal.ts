// Journal reads one service's journal from the agent by websocket, on loopback: it resumes after the last entry that it
// has, asks for access anew at every attempt (a restarted agent has another port and token), and waits longer from
// attempt to attempt. It knows nothing of VS Code. What it hands on is text as it came, a run of entries with one JSON
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

const firstWait = 200;
const longestWait = 5000;

export class Journal {
  private socket: WebSocket | undefined;
  private timer: NodeJS.Timeout | undefined;
  private wait = firstWait;
  private after = 0;
  /** token is the session's whose journal this is. */
  token = '';
  private stopped = false;

  constructor(
    /** access is asked at every attempt; nothing means that there is no more to read. */
    private readonly access: () => Promise<Access | undefined>,
    private readonly events: JournalEvents,
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
    let access: Access | undefined;
    let url: URL;
    try {
      access = await this.access();
      if (!access) {
        if (!this.stopped) this.events.state({ state: 'ended' });
        return;
      }
      url = journalURL(access.url);
    } catch (err) {
      this.retry(err instanceof Error ? err.message : String(err));
      return;
    }
    if (this.stopped) return;
    // A token is a session's: with another one, our sequence number means nothing there.
    const other = this.token !== '' && this.token !== access.token;
    if (other) this.after = 0;
    this.token = access.token;
    url.searchParams.set('after', String(this.after));
    url.searchParams.set('logs', '1');
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
      if (other) this.events.restarted();
      this.events.state({ state: 'reading' });
    });
    ws.on('message', (data) => {
      const text = String(data);
      if (first) {
        first = false;
        if (isReset(text) && !other && this.after > 0) this.events.restarted();
      }
      const last = lastSeq(text);
      if (last !== undefined) this.after = last;
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

function isReset(text: string): boolean {
  const end = text.indexOf('\n');
  try {
    return (JSON.parse(end < 0 ? text : text.slice(0, end)) as { reset?: unknown }).reset === true;
  } catch {
    return false;
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
