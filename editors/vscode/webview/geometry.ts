// Where rows are. All are of one height, save the few that the user has opened: so a place is arithmetic, whatever the
// number of rows.

export class Geometry {
  /** By row number: how much higher than others an opened row is. */
  private extra = new Map<number, number>();
  private sorted: { index: number; above: number; extra: number }[] = [];

  constructor(public height: number) {}

  open(id: number, extra: number): void {
    this.extra.set(id, extra);
  }

  close(id: number): void {
    this.extra.delete(id);
  }

  isOpen(id: number): boolean {
    return this.extra.has(id);
  }

  extraOf(id: number): number {
    return this.extra.get(id) ?? 0;
  }

  clear(): void {
    this.extra.clear();
    this.sorted = [];
  }

  /** settle takes the opened rows' present places; index is undefined for a row that is not shown. */
  settle(first: number, index: (id: number) => number | undefined): void {
    this.sorted = [];
    if (this.extra.size === 0) return;
    for (const [id, extra] of this.extra) {
      if (id < first) {
        this.extra.delete(id);
        continue;
      }
      const i = index(id);
      if (i !== undefined) this.sorted.push({ index: i, above: 0, extra });
    }
    this.sorted.sort((a, b) => a.index - b.index);
    let above = 0;
    for (const s of this.sorted) {
      s.above = above;
      above += s.extra;
    }
  }

  /** top is where a row begins. */
  top(i: number): number {
    let add = 0;
    for (const s of this.sorted) {
      if (s.index >= i) break;
      add = s.above + s.extra;
    }
    return i * this.height + add;
  }

  /** at is the row at a place. */
  at(y: number, count: number): number {
    let add = 0;
    for (const s of this.sorted) {
      const top = s.index * this.height + s.above;
      if (y < top) break;
      if (y < top + this.height + s.extra) return s.index;
      add = s.above + s.extra;
    }
    return Math.min(Math.max(0, Math.floor((y - add) / this.height)), Math.max(0, count - 1));
  }
}
