// Backlog holds what the log view has not taken yet: while it is hidden, still loading, or slower than the service.
// It keeps no more than the view would, the oldest going first, and it hands out runs of a bounded size, few at a
// time, so that the view's thread is never behind a queue of messages.

export interface Run {
  texts: string[];
  /** skipped counts lines that went because there were more than the view keeps. */
  skipped: number;
}

const runBytes = 1 << 20;

export class Backlog {
  private texts: { text: string; lines: number }[] = [];
  private lines = 0;
  private skipped = 0;

  constructor(private max: number) {}

  limit(max: number): void {
    this.max = max;
    this.trim();
  }

  push(text: string): void {
    let lines = 0;
    for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) lines++;
    if (text.length > 0 && text.charCodeAt(text.length - 1) !== 10) lines++;
    this.texts.push({ text, lines });
    this.lines += lines;
    this.trim();
  }

  clear(): void {
    this.texts = [];
    this.lines = this.skipped = 0;
  }

  get size(): number {
    return this.lines;
  }

  take(): Run | undefined {
    if (this.texts.length === 0) return undefined;
    let n = 0;
    let bytes = 0;
    while (n < this.texts.length && (n === 0 || bytes + this.texts[n]!.text.length <= runBytes)) bytes += this.texts[n++]!.text.length;
    const taken = this.texts.splice(0, n);
    for (const t of taken) this.lines -= t.lines;
    const run = { texts: taken.map((t) => t.text), skipped: this.skipped };
    this.skipped = 0;
    return run;
  }

  private trim(): void {
    let n = 0;
    // Whole messages only, and never the newest one.
    while (this.lines > this.max && n < this.texts.length - 1) {
      this.lines -= this.texts[n]!.lines;
      this.skipped += this.texts[n]!.lines;
      n++;
    }
    if (n > 0) this.texts.splice(0, n);
  }
}
