// The drawing tools. Each takes pixels of the map: down(x, y), move(x, y), up(x, y), cancel(),
// and preview(context, pixel): what is drawn over the map meanwhile. `Hands` leads pointer and
// keyboard to the chosen one.

import { brushRows, flood, instanceAt, polygon, rectangle, stroke } from "./raster.js";

/** Brush and eraser: a line as wide as the brush, from pixel to pixel. */
class Brush {
  constructor(studio, id) {
    Object.assign(this, { studio, id });
  }

  down(x, y) {
    this.number = this.studio.objectAt(x, y, this.id());
    this.studio.document.begin();
    this.rows = brushRows(this.studio.settings.size);
    this.last = [x, y];
    this.move(x, y);
  }

  move(x, y) {
    const { document } = this.studio;
    const id = this.id();
    stroke(...this.last, x, y, this.rows, (row, x0, x1) => document.span(row, x0, x1, id, this.number));
    this.last = [x, y];
    document.flush();
  }

  up(x, y) {
    this.move(x, y);
    this.studio.document.commit();
  }

  cancel() {
    this.studio.document.cancel();
  }

  preview(context, pixel, at) {
    if (at) outline(context, pixel, at, brushRows(this.studio.settings.size));
  }
}

/** Line and rectangle: drawn again at each move, from where the pointer went down. */
class Shape {
  constructor(studio, draw) {
    Object.assign(this, { studio, draw });
  }

  down(x, y) {
    this.start = [x, y];
    this.number = this.studio.objectAt(x, y, this.studio.settings.classId);
    this.move(x, y);
  }

  move(x, y) {
    const { document, settings } = this.studio;
    document.cancel();
    document.begin();
    const span = (row, x0, x1) => document.span(row, x0, x1, settings.classId, this.number);
    this.draw(...this.start, x, y, span, brushRows(settings.size));
    document.flush();
  }

  up(x, y) {
    this.move(x, y);
    this.studio.document.commit();
  }

  cancel() {
    this.studio.document.cancel();
  }

  preview(context, pixel, at) {
    if (at) outline(context, pixel, at, this.draw === drawLine ? brushRows(this.studio.settings.size) : brushRows(1));
  }
}

const drawLine = (x0, y0, x1, y1, span, rows) => stroke(x0, y0, x1, y1, rows, span);
const drawRectangle = (x0, y0, x1, y1, span) => rectangle(x0, y0, x1, y1, span);

class Fill {
  constructor(studio) {
    this.studio = studio;
  }

  down(x, y) {
    const { document, settings } = this.studio;
    if (!document.map.inside(x, y)) return;
    const number = this.studio.objectAt(x, y, settings.classId);
    document.begin();
    flood(document.map.copy(), x, y, (row, x0, x1) => document.span(row, x0, x1, settings.classId, number));
    document.commit();
  }
}

/** Corners one by one; the first one again, a double click or Enter closes it. */
class Polygon {
  constructor(studio) {
    this.studio = studio;
    this.points = [];
  }

  down(x, y) {
    const [first] = this.points;
    const last = this.points.at(-1);
    const near = Math.max(1, 6 / this.studio.view.scale);
    const again = (point) => point && Math.hypot(point[0] - x, point[1] - y) <= near;
    if (this.points.length > 2 && (again(first) || again(last))) return this.finish();
    if (!again(last)) this.points.push([x, y]);
    this.studio.redraw();
  }

  finish() {
    const { document, settings } = this.studio;
    const points = this.points;
    this.points = [];
    if (points.length > 2) {
      const number = this.studio.objectAt(...points[0], settings.classId);
      document.begin();
      polygon(points, (row, x0, x1) => document.span(row, x0, x1, settings.classId, number));
      document.commit();
    }
    this.studio.redraw();
  }

  cancel() {
    this.points = [];
    this.studio.redraw();
  }

  back() {
    this.points.pop();
    this.studio.redraw();
    return true;
  }

  get busy() {
    return this.points.length > 0;
  }

  preview(context, pixel, at) {
    if (!this.points.length) return at && outline(context, pixel, at, brushRows(1));
    context.beginPath();
    for (const [x, y] of this.points) context.lineTo(x + 0.5, y + 0.5);
    if (at) context.lineTo(at[0] + 0.5, at[1] + 0.5);
    twice(context, pixel);
    for (const [x, y] of this.points) {
      context.fillStyle = "#fff";
      context.fillRect(x + 0.5 - 3 * pixel, y + 0.5 - 3 * pixel, 6 * pixel, 6 * pixel);
    }
  }
}

/** Move or copy the instance under the pointer, with its pixels where it has some of its own. */
class Carry {
  constructor(studio, copy) {
    Object.assign(this, { studio, copy });
  }

  down(x, y) {
    const { document } = this.studio;
    this.found = null;
    if (!document.map.inside(x, y)) return;
    this.found = instanceAt(document.map, x, y);
    this.start = [x, y];
    this.number = null;
  }

  move(x, y) {
    if (!this.found) return;
    const { document } = this.studio;
    const { id, number, spans, around } = this.found;
    const [dx, dy] = [x - this.start[0], y - this.start[1]];
    const of = document.placed.get(number);
    this.number ??= document.number();
    if (of) document.placed.set(this.number, { ...of, top: of.top + dy, left: of.left + dx });
    document.cancel();
    document.begin();
    if (!this.copy && around !== null) for (const [row, x0, x1] of spans) document.span(row, x0, x1, around);
    for (const [row, x0, x1] of spans) document.span(row + dy, x0 + dx, x1 + dx, id, this.number);
    document.flush();
  }

  up(x, y) {
    if (!this.found) return;
    const moved = x !== this.start[0] || y !== this.start[1];
    if (moved) this.move(x, y);
    if (moved) this.studio.document.commit();
    else this.studio.document.cancel();
    this.found = null;
  }

  cancel() {
    this.studio.document.cancel();
    this.found = null;
  }
}

/** An object of the shelf: `stamp` has its class, its spans around its middle, and its picture. */
class Stamp {
  constructor(studio) {
    this.studio = studio;
  }

  down(x, y) {
    const { document, stamp } = this.studio;
    if (!stamp) return;
    document.begin();
    const number = document.number({ id: stamp.object, top: y + stamp.top, left: x + stamp.left });
    for (const [row, x0, x1] of stamp.spans) document.span(row + y, x0 + x, x1 + x, stamp.id, number);
    document.commit();
  }

  preview(context, pixel, at) {
    const { stamp, labels, settings } = this.studio;
    if (!at || !stamp) return;
    if (stamp.picture && settings.objectPixels) {
      context.drawImage(stamp.picture, at[0] + stamp.left, at[1] + stamp.top);
      return;
    }
    context.fillStyle = labels.css(stamp.id);
    context.globalAlpha = 0.75;
    for (const [row, x0, x1] of stamp.spans) context.fillRect(at[0] + x0, at[1] + row, x1 - x0 + 1, 1);
  }
}

class Eyedropper {
  constructor(studio) {
    this.studio = studio;
  }

  down(x, y) {
    const { document, settings } = this.studio;
    if (document.map.inside(x, y)) settings.set({ classId: document.map.get(x, y) });
  }

  move(x, y) {
    this.down(x, y);
  }
}

class Hand {}

/** All tools by name, in the order of the toolbar. */
export function makeTools(studio) {
  const chosen = () => studio.settings.classId;
  return {
    brush: { name: "Brush", key: "b", tool: new Brush(studio, chosen) },
    eraser: { name: "Eraser (unlabelled)", key: "e", tool: new Brush(studio, () => studio.labels.unlabelled) },
    fill: { name: "Flood fill", key: "g", tool: new Fill(studio) },
    polygon: { name: "Polygon", key: "p", tool: new Polygon(studio) },
    line: { name: "Line", key: "l", tool: new Shape(studio, drawLine) },
    rectangle: { name: "Rectangle", key: "r", tool: new Shape(studio, drawRectangle) },
    move: { name: "Move an instance", key: "m", tool: new Carry(studio, false) },
    copy: { name: "Copy an instance", key: "c", tool: new Carry(studio, true) },
    eyedropper: { name: "Eyedropper", key: "i", tool: new Eyedropper(studio) },
    hand: { name: "Hand (moves the view)", key: "h", tool: new Hand() },
    stamp: { name: "Object of the shelf", key: "", tool: new Stamp(studio), hidden: true },
  };
}

/** A line that shows on dark and on light. */
function twice(context, pixel) {
  context.lineWidth = 3 * pixel;
  context.strokeStyle = "rgb(0 0 0 / 65%)";
  context.stroke();
  context.lineWidth = 1.2 * pixel;
  context.strokeStyle = "#fff";
  context.stroke();
}

/** The border of the pixels that a brush covers. */
function outline(context, pixel, [x, y], rows) {
  context.beginPath();
  const right = rows.map(([dy, , x1]) => [x + x1 + 1, y + dy]);
  const left = rows.map(([dy, x0]) => [x + x0, y + dy]);
  for (const [px, py] of right) {
    context.lineTo(px, py);
    context.lineTo(px, py + 1);
  }
  for (const [px, py] of left.reverse()) {
    context.lineTo(px, py + 1);
    context.lineTo(px, py);
  }
  context.closePath();
  twice(context, pixel);
}
