// The rows that the view keeps, and which of them the filter lets through. Rows are named by numbers that only grow, so
// that throwing the oldest away moves nothing else.

import type { Row } from './row';

export class Store {
  private rows: Row[] = [];
  private first = 0; // the number of rows[0]
  private shown: number[] | undefined; // undefined: all
  private accept: ((r: Row) => boolean) | undefined;

  constructor(public max: number) {}

  /** total is how many rows there are, count how many of them the filter lets through. */
  get total(): number {
    return this.rows.length;
  }

  get count(): number {
    return this.shown ? this.shown.length : this.rows.length;
  }

  get firstId(): number {
    return this.first;
  }

  get endId(): number {
    return this.first + this.rows.length;
  }

  get filtered(): boolean {
    return this.shown !== undefined;
  }

  at(i: number): Row {
    return this.shown ? this.rows[this.shown[i]! - this.first]! : this.rows[i]!;
  }

  byId(id: number): Row | undefined {
    return this.rows[id - this.first];
  }

  /** index is the place of a row among those shown, or of the first one after it. */
  index(id: number): number {
    if (!this.shown) return Math.min(Math.max(0, id - this.first), this.rows.length);
    let lo = 0;
    let hi = this.shown.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.shown[mid]! < id) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  isShown(id: number): boolean {
    if (id < this.first || id >= this.endId) return false;
    return !this.shown || this.shown[this.index(id)] === id;
  }

  /** append adds rows and says how many of those shown went at the front. */
  append(rows: Row[]): number {
    for (const r of rows) {
      this.rows.push(r);
      if (this.shown && this.accept!(r)) this.shown.push(r.id);
    }
    // A tenth more than the limit is kept for a while, so that the array is not moved for every line.
    if (this.rows.length <= this.max * 1.1) return 0;
    const n = this.rows.length - this.max;
    this.rows.splice(0, n);
    this.first += n;
    if (!this.shown) return n;
    let gone = 0;
    while (gone < this.shown.length && this.shown[gone]! < this.first) gone++;
    this.shown.splice(0, gone);
    return gone;
  }

  clear(nextId: number): void {
    this.rows = [];
    this.first = nextId;
    if (this.shown) this.shown = [];
  }

  /** filter builds the list of what is shown, in steps: it returns true when it is done. */
  *filter(accept: ((r: Row) => boolean) | undefined): Generator<void, void> {
    if (!accept) {
      this.shown = this.accept = undefined;
      return;
    }
    // Until it is done the old list is shown; what is thrown away meanwhile is left out at the end.
    const shown: number[] = [];
    let id = this.first;
    for (;;) {
      id = Math.max(id, this.first);
      const end = Math.min(id + 1000, this.endId);
      for (; id < end; id++) if (accept(this.rows[id - this.first]!)) shown.push(id);
      if (id >= this.endId) break;
      yield;
    }
    let gone = 0;
    while (gone < shown.length && shown[gone]! < this.first) gone++;
    this.shown = gone > 0 ? shown.slice(gone) : shown;
    this.accept = accept;
  }
}
