// The mask that is drawn: an id map, objects with pixels of their own, what was touched since the
// rest was locked, undo and redo.
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
    this.placed = new Map(); // number to {id, top, left}: objects of the shelf on the map
    this.last = 0; // the number that was given last
    this.#take(map);
  }

  /** A number for a new object; `of`: {id, top, left} where it has the pixels of one of the shelf. */
  number(of = null) {
    this.last++;
    if (of) this.placed.set(this.last, of);
    return this.last;
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
    const { ids, numbers } = this.map;
    this.before = { ids: ids.slice(), numbers: numbers.slice(), touched: this.touched.slice() };
    this.bounds = new Bounds();
  }

  /** Set pixels x0..x1 of row y, which are of an object or of none; outside of the map: ignored. */
  span(y, x0, x1, id, number = 0) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width - 1, x1);
    if (y < 0 || y >= this.height || x1 < x0) return;
    const row = y * this.width;
    this.map.ids.fill(id, row + x0, row + x1 + 1);
    this.map.numbers.fill(number, row + x0, row + x1 + 1);
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
    const { ids, numbers } = this.map;
    const packed = (...planes) => planes.map((plane) => pack(plane, width, bounds));
    this.history.push({
      bounds,
      since: this.since,
      before: packed(before.ids, before.numbers, before.touched),
      after: packed(ids, numbers, this.touched),
    });
    this.#tell("commit", { bounds });
    return true;
  }

  /** Forget the step that was begun. */
  cancel() {
    if (!this.before) return;
    this.map.ids.set(this.before.ids);
    this.map.numbers.set(this.before.numbers);
    this.touched.set(this.before.touched);
    this.before = this.dirty = null;
    if (!this.bounds.empty) this.#tell("draw", { bounds: this.bounds });
  }

  /** Put another map in its place, of any size; one step of undo. */
  replace(map) {
    this.cancel();
    const old = this.map.packed();
    this.#take(map);
    this.history.push({ old, new: map.packed() });
    this.#tell("size");
    this.#tell("commit", { bounds: this.#all() });
  }

  /** All of it, for `enter`. */
  leave() {
    this.cancel();
    const { map, touched, history, placed, last } = this;
    return { map, touched, history, placed, last };
  }

  /** Go on with what was left, or with another map alone: nothing of before can be undone. */
  enter({ map, touched = null, history = new History(), placed = new Map(), last = 0 }) {
    this.cancel();
    this.#take(map);
    if (touched) this.touched = touched;
    Object.assign(this, { history, placed: new Map(placed), last });
    this.#tell("size");
    this.#tell("commit", { bounds: this.#all() });
  }

  /** The map of another size, nearest pixels; objects have new numbers: they have no pixels of that size. */
  scaled(width, height) {
    const old = this.map;
    const map = new IdMap(width, height);
    const numbers = new Map([[0, 0]]);
    for (let y = 0; y < height; y++) {
      const row = Math.floor(((y + 0.5) * old.height) / height) * old.width;
      for (let x = 0; x < width; x++) {
        const from = row + Math.floor(((x + 0.5) * old.width) / width);
        const number = old.numbers[from];
        if (!numbers.has(number)) numbers.set(number, this.placed.has(number) ? this.number() : number);
        map.ids[y * width + x] = old.ids[from];
        map.numbers[y * width + x] = numbers.get(number);
      }
    }
    return map;
  }

  #all() {
    return new Bounds().add(0, 0, this.width - 1, this.height - 1);
  }

  #apply(step, side) {
    if (!step) return false;
    if (step.bounds) {
      const [ids, numbers, touched] = step[side === "old" ? "before" : "after"];
      const now = step.since === this.since ? null : this.map.copy();
      unpack(ids, this.map.ids, this.width, step.bounds);
      unpack(numbers, this.map.numbers, this.width, step.bounds);
      if (!now) unpack(touched, this.touched, this.width, step.bounds);
      else this.#touchChanged(now);
      this.#tell("draw", { bounds: step.bounds });
    } else {
      this.#take(IdMap.unpacked(step[side]));
      this.#tell("size");
    }
    this.#tell("commit", { bounds: step.bounds ?? this.#all() });
    return true;
  }

  /** What differs from an earlier map counts as touched. */
  #touchChanged({ ids, numbers }) {
    const { map, touched } = this;
    for (let i = 0; i < touched.length; i++) {
      if (map.ids[i] !== ids[i] || map.numbers[i] !== numbers[i]) touched[i] = 255;
    }
  }

  undo() {
    this.cancel();
    return this.#apply(this.history.undo(), "old");
  }

  redo() {
    this.cancel();
    return this.#apply(this.history.redo(), "new");
  }

  /** From now on, count what is touched again. */
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
