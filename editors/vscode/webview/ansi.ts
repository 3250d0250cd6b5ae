// ANSI colours of a log line as runs of text with a style. Whatever else an escape sequence asks for (titles, links,
// cursor movement) and other control characters are left out: a log line cannot do more than be read.

export interface Style {
  fg?: string; // a colour's index in the terminal palette, or a CSS colour
  bg?: string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  strike?: boolean;
  inverse?: boolean;
}

export interface Piece {
  text: string;
  style: Style | undefined;
}

// CSI ... final | OSC ... (BEL | ST) | other escapes of two characters | lone control characters except tab
const escapes = /\x1b\[([0-9:;<=>?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)|\x1b[ -/]*[0-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;

/** plain is a line without its escape sequences, for search and copy. */
export function plain(s: string): string {
  return needs(s) ? s.replace(escapes, '') : s;
}

const needs = (s: string): boolean => /[\x00-\x08\x0a-\x1f\x7f-\x9f]/.test(s);

export function pieces(s: string): Piece[] {
  if (!needs(s)) return [{ text: s, style: undefined }];
  const out: Piece[] = [];
  let style: Style | undefined;
  let from = 0;
  const add = (to: number): void => {
    if (to > from) out.push({ text: s.slice(from, to), style });
  };
  escapes.lastIndex = 0;
  for (let m = escapes.exec(s); m; m = escapes.exec(s)) {
    add(m.index);
    from = m.index + m[0].length;
    if (m[2] === 'm') style = apply(style, m[1] ?? '');
  }
  add(s.length);
  return out;
}

function apply(old: Style | undefined, codes: string): Style | undefined {
  const s: Style = { ...old };
  const n = codes.split(/[;:]/).map((c) => (c === '' ? 0 : Number(c)));
  for (let i = 0; i < n.length; i++) {
    const c = n[i]!;
    if (c === 0) for (const k of Object.keys(s)) delete s[k as keyof Style];
    else if (c === 1) s.bold = true;
    else if (c === 2) s.dim = true;
    else if (c === 3) s.italic = true;
    else if (c === 4) s.underline = true;
    else if (c === 7) s.inverse = true;
    else if (c === 9) s.strike = true;
    else if (c === 22) {
      delete s.bold;
      delete s.dim;
    } else if (c === 23) delete s.italic;
    else if (c === 24) delete s.underline;
    else if (c === 27) delete s.inverse;
    else if (c === 29) delete s.strike;
    else if (c >= 30 && c <= 37) s.fg = String(c - 30);
    else if (c >= 90 && c <= 97) s.fg = String(c - 90 + 8);
    else if (c === 39) delete s.fg;
    else if (c >= 40 && c <= 47) s.bg = String(c - 40);
    else if (c >= 100 && c <= 107) s.bg = String(c - 100 + 8);
    else if (c === 49) delete s.bg;
    else if (c === 38 || c === 48) {
      let color: string | undefined;
      if (n[i + 1] === 5) {
        color = indexed(n[i + 2]);
        i += 2;
      } else if (n[i + 1] === 2) {
        const [r, g, b] = [n[i + 2], n[i + 3], n[i + 4]];
        if ([r, g, b].every(byte)) color = `rgb(${r} ${g} ${b})`;
        i += 4;
      } else break;
      if (color !== undefined) s[c === 38 ? 'fg' : 'bg'] = color;
    }
  }
  return Object.keys(s).length > 0 ? s : undefined;
}

const byte = (v: number | undefined): boolean => v !== undefined && Number.isInteger(v) && v >= 0 && v <= 255;

function indexed(v: number | undefined): string | undefined {
  if (!byte(v)) return undefined;
  const n = v!;
  if (n < 16) return String(n);
  if (n >= 232) {
    const g = 8 + (n - 232) * 10;
    return `rgb(${g} ${g} ${g})`;
  }
  const level = (x: number): number => (x === 0 ? 0 : 55 + x * 40);
  const c = n - 16;
  return `rgb(${level(Math.floor(c / 36))} ${level(Math.floor(c / 6) % 6)} ${level(c % 6)})`;
}
