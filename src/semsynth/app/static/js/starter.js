// A first mask where there is no data: something to see and to change. Always the same. No DOM.

import { IdMap } from "./idmap.js";

/** Numbers in [0, 1) that are the same at each call (a linear congruential generator). */
function* numbers(state = 7) {
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** Areas of the classes that are no things, and some ellipses of those that are. */
export function starter(width, height, labels) {
  const random = numbers();
  const next = () => random.next().value;
  const grounds = labels.usable.filter(({ thing }) => !thing).slice(0, 6);
  const things = labels.usable.filter(({ thing }) => thing).slice(0, 6);
  const base = grounds.length ? grounds : labels.usable.slice(0, 1);
  const map = IdMap.filled(width, height, base[0]?.id ?? labels.unlabelled);
  if (base.length > 1) {
    // Each pixel is of the nearest point's class.
    const points = Array.from({ length: 3 * base.length }, (_, i) =>
      [next() * width, next() * height, base[i % base.length].id]);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        let least = Infinity;
        for (const [px, py, id] of points) {
          const distance = (px - x) ** 2 + (py - y) ** 2;
          if (distance < least) [least, map.ids[i]] = [distance, id];
        }
      }
    }
  }
  const count = things.length ? 12 : 0;
  for (let n = 0; n < count; n++) {
    const { id } = things[n % things.length];
    const [cx, cy] = [(0.08 + 0.84 * next()) * width, (0.08 + 0.84 * next()) * height];
    const [rx, ry] = [(0.04 + 0.05 * next()) * width, (0.04 + 0.05 * next()) * height];
    for (let y = Math.max(0, Math.ceil(cy - ry)); y < Math.min(height, cy + ry); y++) {
      const reach = rx * Math.sqrt(Math.max(0, 1 - ((y - cy) / ry) ** 2));
      const left = Math.max(0, Math.ceil(cx - reach));
      map.ids.fill(id, y * width + left, y * width + Math.max(left, Math.min(width, Math.floor(cx + reach) + 1)));
    }
  }
  return map;
}
