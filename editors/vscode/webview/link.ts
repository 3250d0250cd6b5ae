// Links in a log line: Go files with a line, as compilers, log packages and stack traces write them, and web addresses.

export interface Link {
  from: number;
  to: number;
  file?: string;
  line?: number;
  column?: number;
  url?: string;
}

// A path may have a drive, an @version of the module cache, and what module paths have; it has no spaces unless it
// is a stack frame, which is all of its line.
const frame = /^\s+((?:[A-Za-z]:)?[/\\][^\0]*?\.go):(\d+)(?= \+0x[0-9a-f]+$|$)/;
const file = /(?:[A-Za-z]:[\\/])?[\w.@~+/\\!-]*[\w-]\.go:(\d{1,7})(?::(\d{1,5}))?/g;
const web = /\bhttps?:\/\/[^\s"'`<>\\^{}|]+/g;

export function links(text: string): Link[] {
  const out: Link[] = [];
  if (!text.includes('.go:') && !text.includes('://')) return out;
  const f = frame.exec(text);
  if (f) {
    const from = text.indexOf(f[1]!);
    return [{ from, to: f[0].length, file: f[1]!, line: Number(f[2]), column: 0 }];
  }
  for (const m of text.matchAll(web)) {
    // What ends a sentence is not the address's, nor a bracket that it does not open.
    let url = m[0].replace(/[.,;:!?]+$/, '');
    while (/[)\]]$/.test(url) && !url.includes(url.endsWith(')') ? '(' : '[')) url = url.slice(0, -1).replace(/[.,;:!?]+$/, '');
    if (url.length > 'https://'.length) out.push({ from: m.index, to: m.index + url.length, url });
  }
  for (const m of text.matchAll(file)) {
    const from = m.index;
    const to = from + m[0].length;
    if (out.some((l) => from < l.to && to > l.from)) continue;
    const name = m[0].slice(0, m[0].lastIndexOf('.go:') + 3);
    out.push({ from, to, file: name, line: Number(m[1]), column: m[2] ? Number(m[2]) : 0 });
  }
  return out.sort((a, b) => a.from - b.from);
}
