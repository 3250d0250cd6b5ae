// When two diagnostics say the same thing. Pure, so that a table can test it.

export interface Finding {
  line: number;
  column: number;
  error: boolean;
  message: string;
  source: string;
}

/** same says whether another extension's error is the one that ours tells of: same line, same first line of words. */
export function same(ours: Finding, other: Finding): boolean {
  return other.error && ours.line === other.line && words(ours.message) === words(other.message);
}

// The go command indents what follows the first line (have, want) and gopls does not always repeat it.
const words = (s: string): string => (s.trim().split('\n')[0] ?? '').replace(/\s+/g, ' ').trim();
