// An id map: one class id for each pixel, in rows, and the number of the object that it belongs to.
// No colours, no DOM.

/** A rectangle that grows: pixels left..right and top..bottom, both inclusive; empty at first. */
export class Bounds {
  constructor() {
    this.left = this.top = Infinity;
    this.right = this.bottom = -Infinity;
  }

  get empty() {
    return this.right < this.left;
  }

  get width() {
    return this.empty ? 0 : this.right - this.left + 1;
  }

  get height() {
    return this.empty ? 0 : this.bottom - this.top + 1;
  }

  add(x0, y0, x1 = x0, y1 = y0) {
    this.left = Math.min(this.left, x0);
    this.top = Math.min(this.top, y0);
    this.right = Math.max(this.right, x1);
    this.bottom = Math.max(this.bottom, y1);
    return this;
  }

  join(other) {
    return other.empty ? this : this.add(other.left, other.top, other.right, other.bottom);
  }
}

/** Ids of 0 to 65,535; numbers of objects, 0 where none is known. */
export class IdMap {
  constructor(width, height, ids = new Uint16Array(width * height), numbers = new Uint32Array(width * height)) {
    for (const { length } of [ids, numbers]) {
      if (length !== width * height) throw new Error(`${length} ids for ${width}x${height}`);
    }
    this.width = width;
    this.height = height;
    this.ids = ids;
    this.numbers = numbers;
  }

  static filled(width, height, id) {
    const map = new IdMap(width, height);
    map.ids.fill(id);
    return map;
  }

  copy() {
    return new IdMap(this.width, this.height, this.ids.slice(), this.numbers.slice());
  }

  inside(x, y) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  get(x, y) {
    return this.ids[y * this.width + x];
  }

  /** Pixels of each id: Map of id to count. */
  counts() {
    const table = new Uint32Array(65536);
    for (const id of this.ids) table[id]++;
    const found = new Map();
    table.forEach((count, id) => count && found.set(id, count));
    return found;
  }

  equals(other) {
    return this.width === other.width && this.height === other.height &&
      this.ids.every((id, i) => id === other.ids[i] && this.numbers[i] === other.numbers[i]);
  }

  /** The objects from 1 on, as files hold them: {numbers: what each is called here, plane}. */
  objects() {
    const places = new Map();
    const plane = new Uint32Array(this.numbers.length);
    this.numbers.forEach((number, i) => {
      if (!number) return;
      if (!places.has(number)) places.set(number, places.size + 1);
      plane[i] = places.get(number);
    });
    if (places.size > 65535) throw new Error(`The mask has ${places.size} objects; at most 65535 can be told apart.`);
    return { numbers: [...places.keys()], plane };
  }

  /** As it is stored: in runs where that is shorter. */
  packed() {
    const all = new Bounds().add(0, 0, this.width - 1, this.height - 1);
    const planes = [this.ids, this.numbers].map((plane) => pack(plane, this.width, all));
    return { width: this.width, height: this.height, ids: planes[0], numbers: planes[1] };
  }

  static unpacked({ width, height, ids, numbers }) {
    const map = new IdMap(width, height);
    const all = new Bounds().add(0, 0, width - 1, height - 1);
    unpack(ids, map.ids, width, all);
    if (numbers) unpack(numbers, map.numbers, width, all); // absent from what older pages stored
    return map;
  }
}

/** Rows of a rectangle as runs [length, value, ...], or as they are where that is shorter. */
export function pack(plane, stride, bounds) {
  const { left, top, width, height } = bounds;
  const raw = new plane.constructor(width * height);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * stride + left;
    raw.set(plane.subarray(start, start + width), y * width);
  }
  let count = raw.length ? 1 : 0;
  for (let i = 1; i < raw.length; i++) if (raw[i] !== raw[i - 1]) count++;
  if (count * 8 >= raw.byteLength) return { raw };
  const runs = new Uint32Array(2 * count);
  for (let i = 0, run = -1; i < raw.length; i++) {
    if (i === 0 || raw[i] !== raw[i - 1]) runs[2 * ++run + 1] = raw[i];
    runs[2 * run]++;
  }
  return { runs };
}

/** Write back what `pack` returned. */
export function unpack(packed, plane, stride, bounds) {
  const { left, top, width, height } = bounds;
  let raw = packed.raw;
  if (!raw) {
    raw = new plane.constructor(width * height);
    for (let i = 0, at = 0; i < packed.runs.length; i += 2) {
      raw.fill(packed.runs[i + 1], at, (at += packed.runs[i]));
    }
  }
  for (let y = 0; y < height; y++) {
    plane.set(raw.subarray(y * width, (y + 1) * width), (top + y) * stride + left);
  }
}
