// Zoom and position, the same in all panes, and the panes: canvases that show layers.

const LEAST = 0.05;
const MOST = 64;
const MARGIN = 8; // pixels of the screen around a fitted map

/** One view of the map for all panes: which point is in the middle, and pixels of screen for one of the map. */
export class View extends EventTarget {
  constructor(document_) {
    super();
    this.document = document_;
    this.panes = [];
    this.fitted = true;
    this.scale = 1;
    this.x = this.y = 0;
  }

  #changed() {
    for (const pane of this.panes) pane.draw();
    this.dispatchEvent(new Event("change"));
  }

  /** The whole map, as large as it fits. */
  fit() {
    const { width, height } = this.document;
    const shown = this.panes.filter((pane) => pane.width && pane.height);
    if (!shown.length) return;
    const scales = shown.map((pane) => Math.min((pane.width - 2 * MARGIN) / width, (pane.height - 2 * MARGIN) / height));
    this.scale = Math.min(MOST, Math.max(LEAST, Math.min(...scales)));
    this.x = width / 2;
    this.y = height / 2;
    this.fitted = true;
    this.#changed();
  }

  /** Zoom by a factor around a point of a pane (its middle by default). */
  zoom(factor, pane = null, px = 0, py = 0) {
    const old = this.scale;
    this.scale = Math.min(MOST, Math.max(LEAST, old * factor));
    if (pane) {
      const shift = 1 / old - 1 / this.scale;
      this.x += (px - pane.width / 2) * shift;
      this.y += (py - pane.height / 2) * shift;
    }
    this.pan(0, 0);
  }

  /** Move the map by pixels of the screen; its middle stays in sight. */
  pan(dx, dy) {
    const { width, height } = this.document;
    this.x = Math.min(width, Math.max(0, this.x - dx / this.scale));
    this.y = Math.min(height, Math.max(0, this.y - dy / this.scale));
    this.fitted = false;
    this.#changed();
  }

  /** Where the map's corner lies in a pane, in pixels of the screen. */
  origin(pane) {
    return [pane.width / 2 - this.x * this.scale, pane.height / 2 - this.y * this.scale];
  }

  /** The map's pixel below a pointer; may lie outside of the map. */
  pixel(pane, clientX, clientY) {
    const box = pane.canvas.getBoundingClientRect();
    const [left, top] = this.origin(pane);
    return [
      Math.floor((clientX - box.left - left) / this.scale),
      Math.floor((clientY - box.top - top) / this.scale),
    ];
  }
}

/** A canvas that draws `layers` (functions of context and pane) in the map's coordinates. */
export class Pane {
  constructor(canvas, view, layers) {
    this.canvas = canvas;
    this.view = view;
    this.layers = layers;
    this.context = canvas.getContext("2d");
    this.width = this.height = 0;
    view.panes.push(this);
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    this.width = clientWidth;
    this.height = clientHeight;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
    if (this.view.fitted) this.view.fit();
    this.drawNow();
  }

  /** Draw at the next frame. */
  draw() {
    this.pending ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    if (this.pending) cancelAnimationFrame(this.pending);
    this.pending = undefined;
    if (!this.width) return;
    const { context, ratio } = this;
    const { scale, document: map } = this.view;
    const [left, top] = this.view.origin(this);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(scale * ratio, 0, 0, scale * ratio, left * ratio, top * ratio);
    context.save();
    context.beginPath();
    context.rect(0, 0, map.width, map.height);
    context.clip();
    for (const layer of this.layers) {
      context.save();
      layer(context, this);
      context.restore();
    }
    context.restore();
  }
}

/** Whether another object of the same class begins right of or below a pixel. */
function objectEnds({ ids, numbers, width }, at) {
  const other = (next) => ids[next] === ids[at] && numbers[next] !== numbers[at];
  return ((at + 1) % width !== 0 && other(at + 1)) || (at + width < ids.length && other(at + width));
}

/** The id map as colours: an image of its size, of which only what changed is made again. */
export class ColorLayer {
  constructor() {
    this.canvas = document.createElement("canvas");
  }

  /** All of a map; where `except` is a map of its size, only the pixels that differ from it. */
  all(map, table, except = null) {
    this.canvas.width = map.width;
    this.canvas.height = map.height;
    this.update(map, table, { left: 0, top: 0, width: map.width, height: map.height }, except);
  }

  update(map, table, bounds, except = null) {
    if (!bounds.width || !bounds.height) return;
    // One more to the left and above: whether an object ends there depends on what changed.
    const [left, top] = [Math.max(0, bounds.left - 1), Math.max(0, bounds.top - 1)];
    const [width, height] = [bounds.left - left + bounds.width, bounds.top - top + bounds.height];
    const image = new ImageData(width, height);
    const colors = new Uint32Array(image.data.buffer);
    for (let y = 0, i = 0; y < height; y++) {
      let at = (top + y) * map.width + left;
      for (let x = 0; x < width; x++, i++, at++) {
        if (except && map.ids[at] === except.ids[at]) continue;
        const color = table[map.ids[at]];
        colors[i] = !except && objectEnds(map, at) ? ((color & 0xfefefe) >>> 1) | (color & 0xff000000) : color;
      }
    }
    this.canvas.getContext("2d").putImageData(image, left, top);
  }
}
