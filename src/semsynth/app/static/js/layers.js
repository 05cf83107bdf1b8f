// What the panes show, from the bottom up.

import { ColorLayer } from "./view.js";

/** Grey squares where nothing is: pixels without a label, or no image yet. */
function squares() {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 16;
  const context = tile.getContext("2d");
  context.fillStyle = "#8d9093";
  context.fillRect(0, 0, 16, 16);
  context.fillStyle = "#777a7d";
  context.fillRect(0, 0, 8, 8);
  context.fillRect(8, 8, 8, 8);
  return tile;
}

export class Layers {
  constructor(studio) {
    this.studio = studio;
    this.tile = squares();
    this.mask = new ColorLayer();
    this.pending = new ColorLayer(); // drawn since the image was made
    this.source = null; // ImageBitmap of the real image
    this.overlay = null; // canvas of what the evaluator saw
    this.compared = null;
  }

  /** The map, or a part of it, changed. */
  redo(bounds = null) {
    const { document: map, labels, result } = this.studio;
    const of = result?.map;
    const same = of && of.width === map.width && of.height === map.height;
    if (bounds) {
      this.mask.update(map.map, labels.table, bounds);
      if (same) this.pending.update(map.map, labels.table, bounds, of);
    } else {
      this.mask.all(map.map, labels.table);
      if (same) this.pending.all(map.map, labels.table, of);
      else this.pending.canvas.width = 0;
    }
  }

  #ground(context, pane) {
    context.setTransform(pane.ratio, 0, 0, pane.ratio, 0, 0);
    context.fillStyle = context.createPattern(this.tile, "repeat");
    context.fillRect(0, 0, pane.width, pane.height);
  }

  /** An image over the whole map, whatever its own size. */
  #image(context, image, smooth) {
    if (!image?.width) return;
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, this.studio.document.width, this.studio.document.height);
  }

  #tool(context) {
    const { hands, view } = this.studio;
    if (!hands) return;
    const pixel = 1 / view.scale;
    hands.tool.preview?.(context, pixel, hands.hover);
    if (hands.hover && hands.keys) this.#cross(context, pixel, hands.hover);
  }

  #cross(context, pixel, [x, y]) {
    const reach = 14 * pixel;
    const [cx, cy] = [x + 0.5, y + 0.5];
    for (const [style, wide] of [["rgb(0 0 0 / 65%)", 3], ["#fff", 1.2]]) {
      context.strokeStyle = style;
      context.lineWidth = wide * pixel;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(cx + dx * reach * 0.3, cy + dy * reach * 0.3);
        context.lineTo(cx + dx * reach, cy + dy * reach);
      }
      context.stroke();
    }
  }

  get smooth() {
    return this.studio.view.scale < 6;
  }

  ofMask() {
    return [
      (context, pane) => this.#ground(context, pane),
      (context) => this.studio.settings.underlay && this.#image(context, this.source, this.smooth),
      (context) => {
        context.globalAlpha = this.studio.settings.opacity / 100;
        this.#image(context, this.mask.canvas, this.studio.view.scale < 1);
      },
      (context) => this.#tool(context),
    ];
  }

  ofImage(image) {
    return [
      (context, pane) => this.#ground(context, pane),
      (context) => this.#image(context, image(), this.smooth),
      (context) => this.#image(context, this.overlay, false),
      (context) => {
        context.globalAlpha = 0.6;
        if (this.studio.result) this.#image(context, this.pending.canvas, false);
      },
      (context) => this.#tool(context),
    ];
  }

  ofCompared() {
    return [
      (context, pane) => this.#ground(context, pane),
      (context) => this.#image(context, this.compared?.bitmap, this.smooth),
    ];
  }
}
