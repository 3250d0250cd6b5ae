// The messages between the log view's page and the extension host. What the page sends is checked here: it shows what
// services write, so nothing that it says is believed without a look.

/** ToView is what the host tells the page. */
export type ToView =
  | { type: 'services'; services: { name: string; label: string; phase: string }[]; current: string; maxLines: number }
  /** What follows is another journal, of the service that is named. */
  | { type: 'begin'; stream: number; name: string }
  | { type: 'texts'; stream: number; texts: string[]; skipped: number }
  | { type: 'state'; state: 'none' | 'connecting' | 'reading' | 'lost' | 'ended'; text: string }
  | { type: 'command'; command: ViewCommand }
  | { type: 'notice'; text: string };

export type ViewCommand = 'find' | 'filter' | 'clear' | 'follow' | 'timestamps' | 'copy';

/** FromView is what the page tells the host. */
export type FromView =
  | { type: 'ready' }
  /** The texts of a stream have been taken; the next may come. */
  | { type: 'taken'; stream: number }
  | { type: 'open'; file: string; line: number; column: number }
  | { type: 'url'; url: string }
  | { type: 'select'; name: string }
  /** The form on which access to what was refused is requested. */
  | { type: 'access'; callee: string; method: string }
  | { type: 'copy'; text: string }
  | { type: 'run' };

const text = (v: unknown, most: number): v is string => typeof v === 'string' && v.length <= most;
const whole = (v: unknown): v is number => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0;

/** fromView returns a message of the page, or undefined if it is none. */
export function fromView(v: unknown): FromView | undefined {
  if (typeof v !== 'object' || v === null) return undefined;
  const m = v as Record<string, unknown>;
  switch (m.type) {
    case 'ready':
    case 'run':
      return { type: m.type };
    case 'taken':
      return whole(m.stream) ? { type: 'taken', stream: m.stream } : undefined;
    case 'open':
      return text(m.file, 4096) && m.file !== '' && whole(m.line) && whole(m.column) ? { type: 'open', file: m.file, line: m.line, column: m.column } : undefined;
    case 'url':
      return text(m.url, 4096) ? { type: 'url', url: m.url } : undefined;
    case 'select':
      return text(m.name, 512) ? { type: 'select', name: m.name } : undefined;
    case 'access':
      return text(m.callee, 512) && m.callee !== '' && text(m.method, 4096) && m.method !== '' ? { type: 'access', callee: m.callee, method: m.method } : undefined;
    case 'copy':
      return text(m.text, 64 << 20) ? { type: 'copy', text: m.text } : undefined;
    default:
      return undefined;
  }
}
