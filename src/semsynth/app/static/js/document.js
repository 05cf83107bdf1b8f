// The mask that is drawn: an id map, what was touched since the rest was locked, undo and redo.
// No DOM. Events: "draw" {bounds}, "commit" {}, "size" {}.

import { Bounds, IdMap, pack, unpack } from "./idmap.js";

export const UNDO_STEPS = 100;

/** Steps that can be undone; the oldest are forgotten. */
export class History {
  constructor(limit = UNDO_STEPS) {
    this.limit = limit;
    this.done = [];
    this.undone = [];
  }

  push(step) {
    this.done.push(step);
    if (this.done.length > this.limit) this.done.shift();
    this.undone = [];
  }

  undo() {
    const step = this.done.pop();
    if (step) this.undone.push(step);
    return step;
  }

  redo() {
    const step = this.undone.pop();
    if (step) this.done.push(step);
    return step;
  }
}

export class MaskDocument extends EventTarget {
  constructor(map) {
    super();
    this.history = new History();
    this.#take(map);
  }

  #take(map) {
    this.map = map;
    this.touched = new Uint8Array(map.ids.length);
    this.since ??= 0; // how often it was forgotten what was touched
    this.before = null;
  }

  get width() {
    return this.map.width;
  }

  get height() {
    return this.map.height;
  }

  get drawing() {
    return this.before !== null;
  }

  #tell(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Start one step: all spans until `commit` are undone together. */
  begin() {
    if (this.before) this.commit();
    this.before = { ids: this.map.ids.slice(), touched: this.touched.slice() };
    this.bounds = new Bounds();
  }

  /** Set pixels x0..x1 of row y; what is outside of the map is ignored. */
  span(y, x0, x1, id) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width - 1, x1);
    if (y < 0 || y >= this.height || x1 < x0) return;
    const row = y * this.width;
    this.map.ids.fill(id, row + x0, row + x1 + 1);
    this.touched.fill(255, row + x0, row + x1 + 1);
    this.bounds.add(x0, y, x1, y);
    (this.dirty ??= new Bounds()).add(x0, y, x1, y);
  }

  /** Tell what was drawn since the last call, to be shown. */
  flush() {
    if (!this.dirty) return;
    const bounds = this.dirty;
    this.dirty = null;
    this.#tell("draw", { bounds });
  }

  /** End the step. Returns whether any pixel changed or was touched. */
  commit() {
    this.flush();
    const before = this.before;
    this.before = null;
    if (!before || this.bounds.empty) return false;
    const { bounds, width } = this;
    this.history.push({
      bounds,
      since: this.since,
      before: [pack(before.ids, width, bounds), pack(before.touched, width, bounds)],
      after: [pack(this.map.ids, width, bounds), pack(this.touched, width, bounds)],
    });
    this.#tell("commit", { bounds });
    return true;
  }

  /** Forget the step that was begun. */
  cancel() {
    if (!this.before) return;
    this.map.ids.set(this.before.ids);
    this.touched.set(this.before.touched);
    this.before = this.dirty = null;
    if (!this.bounds.empty) this.#tell("draw", { bounds: this.bounds });
  }

  /** Put another map in its place, of any size; one step of undo. */
  replace(map) {
    this.cancel();
    const old = this.#whole();
    this.#take(map);
    this.history.push({ old, new: this.#whole() });
    this.#tell("size");
    this.#tell("commit", { bounds: this.#all() });
  }

  #all() {
    return new Bounds().add(0, 0, this.width - 1, this.height - 1);
  }

  #whole() {
    return { width: this.width, height: this.height, ids: pack(this.map.ids, this.width, this.#all()) };
  }

  #apply(step, side) {
    if (!step) return false;
    if (step.bounds) {
      const [ids, touched] = step[side === "old" ? "before" : "after"];
      const now = step.since === this.since ? null : this.map.ids.slice();
      unpack(ids, this.map.ids, this.width, step.bounds);
      if (!now) unpack(touched, this.touched, this.width, step.bounds);
      else this.map.ids.forEach((id, i) => id !== now[i] && (this.touched[i] = 255));
      this.#tell("draw", { bounds: step.bounds });
    } else {
      const { width, height, ids } = step[side];
      const map = new IdMap(width, height);
      this.#take(map);
      unpack(ids, map.ids, width, this.#all());
      this.#tell("size");
    }
    this.#tell("commit", { bounds: step.bounds ?? this.#all() });
    return true;
  }

  undo() {
    this.cancel();
    return this.#apply(this.history.undo(), "old");
  }

  redo() {
    this.cancel();
    return this.#apply(this.history.redo(), "new");
  }

  /** From now on, count what is touched anew. */
  forgetTouched() {
    this.since++;
    this.touched.fill(0);
  }

  /** Share of pixels touched, 0 to 1. */
  touchedShare() {
    let count = 0;
    for (const value of this.touched) if (value) count++;
    return count / this.touched.length;
  }
}
