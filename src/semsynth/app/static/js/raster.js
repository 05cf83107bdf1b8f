// Shapes as spans of pixels: each calls span(y, x0, x1), x1 inclusive. No DOM; whoever takes the
// spans clips them.

/** Rows of a brush `diameter` pixels wide: [dy, dx0, dx1] from the pixel under the pointer. */
export function brushRows(diameter) {
  const centre = (diameter - 1) / 2;
  const shift = Math.floor(centre);
  const rows = [];
  for (let row = 0; row < diameter; row++) {
    const reach = Math.sqrt(Math.max(0, (diameter / 2) ** 2 - (row - centre) ** 2));
    const first = Math.ceil(centre - reach - 1e-9);
    rows.push([row - shift, first - shift, diameter - 1 - first - shift]);
  }
  return rows;
}

/** The pixels of a line (Bresenham), ends included. */
export function* linePixels(x0, y0, x1, y1) {
  const dx = Math.abs(x1 - x0);
  const dy = -Math.abs(y1 - y0);
  const sx = x0 < x1 ? 1 : -1;
  const sy = y0 < y1 ? 1 : -1;
  let error = dx + dy;
  for (;;) {
    yield [x0, y0];
    if (x0 === x1 && y0 === y1) return;
    const twice = 2 * error;
    if (twice >= dy) {
      error += dy;
      x0 += sx;
    }
    if (twice <= dx) {
      error += dx;
      y0 += sy;
    }
  }
}

/** A line as wide as the brush. */
export function stroke(x0, y0, x1, y1, rows, span) {
  for (const [x, y] of linePixels(x0, y0, x1, y1)) {
    for (const [dy, dx0, dx1] of rows) span(y + dy, x + dx0, x + dx1);
  }
}

/** All pixels between two corners, both included. */
export function rectangle(x0, y0, x1, y1, span) {
  const [left, right] = x0 < x1 ? [x0, x1] : [x1, x0];
  for (let y = Math.min(y0, y1); y <= Math.max(y0, y1); y++) span(y, left, right);
}

/** The inside of a polygon of pixels (even-odd), its outline included. */
export function polygon(points, span) {
  const edges = points.map((point, i) => [point, points[(i + 1) % points.length]]);
  const rows = points.map((point) => point[1]);
  for (let y = Math.min(...rows); y <= Math.max(...rows); y++) {
    const crossings = [];
    for (const [[ax, ay], [bx, by]] of edges) {
      if (ay <= y !== by <= y) crossings.push(ax + ((y - ay) * (bx - ax)) / (by - ay));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      span(y, Math.ceil(crossings[i]), Math.floor(crossings[i + 1]));
    }
  }
  for (const [[ax, ay], [bx, by]] of edges) {
    for (const [x, y] of linePixels(ax, ay, bx, by)) span(y, x, x);
  }
}

/**
 * The connected pixels (4 neighbours) of the id at (x, y), as spans; with `one`, of its object
 * alone. Reads `map` only.
 */
export function flood(map, x, y, span, one = false) {
  const { width, height, ids, numbers } = map;
  const [id, number] = [ids[y * width + x], numbers[y * width + x]];
  const like = (i) => ids[i] === id && (!one || numbers[i] === number);
  const seen = new Uint8Array(ids.length);
  const stack = [x, y];
  while (stack.length) {
    const row = stack.pop();
    const start = stack.pop();
    const base = row * width;
    if (seen[base + start]) continue;
    let left = start;
    let right = start;
    while (left > 0 && like(base + left - 1)) left--;
    while (right < width - 1 && like(base + right + 1)) right++;
    seen.fill(1, base + left, base + right + 1);
    span(row, left, right);
    for (const next of [row - 1, row + 1]) {
      if (next < 0 || next >= height) continue;
      const other = next * width;
      for (let i = left; i <= right; i++) {
        const fits = like(other + i) && !seen[other + i];
        if (fits && (i === left || !like(other + i - 1))) stack.push(i, next);
      }
    }
  }
}

/**
 * The instance at (x, y): its id, number and spans [y, x0, x1], and the id most often beside it
 * (or null).
 */
export function instanceAt(map, x, y) {
  const spans = [];
  flood(map, x, y, (row, x0, x1) => spans.push([row, x0, x1]), true);
  const { width, height, ids } = map;
  const own = map.get(x, y);
  const beside = new Map();
  const count = (px, py) => {
    if (!map.inside(px, py)) return;
    const id = ids[py * width + px];
    if (id !== own) beside.set(id, (beside.get(id) ?? 0) + 1);
  };
  for (const [row, x0, x1] of spans) {
    count(x0 - 1, row);
    count(x1 + 1, row);
    for (let px = x0; px <= x1; px++) {
      if (row > 0) count(px, row - 1);
      if (row < height - 1) count(px, row + 1);
    }
  }
  let around = null;
  for (const [id, n] of beside) if (around === null || n > beside.get(around)) around = id;
  return { id: own, number: map.numbers[y * width + x], spans, around };
}
