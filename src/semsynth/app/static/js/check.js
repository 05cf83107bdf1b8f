// The panel "Check": a segmenter's map over the image, and the nearest training image.

import { $, action, make, percent } from "./dom.js";
import { decodeIds } from "./png.js";

const WRONG = 0xff2a3bff; // red, in the order of bytes that a canvas has

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

export class Check {
  constructor(studio) {
    this.studio = studio;
    action($("evaluate"), studio, () => this.evaluate());
    action($("nearest"), studio, () => this.nearest());
    for (const button of document.querySelectorAll("[data-overlay]")) {
      button.addEventListener("click", () => studio.settings.set({ overlay: button.dataset.overlay }));
    }
    studio.settings.addEventListener("change", ({ detail }) => detail.has("overlay") && this.#show());
  }

  /** What the server can check, or why it cannot. */
  list() {
    const { state } = this.studio;
    const set = (can, button, reason, why) => {
      $(button).disabled = !can;
      $(button).title = can ? "" : why;
      $(reason).textContent = can ? "" : why;
      $(reason).hidden = can;
    };
    set(state.evaluator, "evaluate", "evaluate-reason", state.why_no_evaluator ?? "No segmenter is open.");
    set(state.copies, "nearest", "nearest-reason", state.why_no_copies ?? "No training images are open.");
  }

  /** Another image: what was found belongs to the last one. */
  clear() {
    this.evaluated = null;
    this.studio.layers.overlay = null;
    $("evaluate-result").hidden = true;
    $("nearest-result").hidden = true;
  }

  async evaluate() {
    const { result, api, settings, labels } = this.studio;
    const answer = await api.evaluate({ result: result.result, model: settings.model }, await this.studio.maskOf(result));
    if (result !== this.studio.result) return;
    const [map, wrong] = await Promise.all([decodeIds(bytesOf(answer.map)), decodeIds(bytesOf(answer.disagreement))]);
    this.evaluated = { map, wrong };
    const mean = typeof answer.miou !== "number" ? "no class to compare" : `mean IoU ${percent(answer.miou)}`;
    $("evaluate-line").textContent = [`${answer.evaluator}: ${mean}`, answer.line].filter(Boolean).join(". ");
    $("evaluate-classes").replaceChildren(...answer.classes.map(({ id, iou }) => {
      const bar = make("meter", { min: 0, max: 1, value: iou ?? 0, aria: { label: `IoU of ${labels.name(id)}` } });
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = labels.css(id);
      return make("tr", {}, make("td", {}, swatch, labels.name(id)), make("td", {}, bar, typeof iou === "number" ? percent(iou) : "none"));
    }));
    $("evaluate-result").hidden = false;
    if (settings.overlay === "none") settings.set({ overlay: "disagreement" });
    this.#show();
    this.studio.say($("evaluate-line").textContent);
  }

  #show() {
    const { settings, labels, layers } = this.studio;
    for (const button of document.querySelectorAll("[data-overlay]")) {
      button.setAttribute("aria-pressed", button.dataset.overlay === settings.overlay);
    }
    layers.overlay = null;
    const chosen = this.evaluated && { map: this.evaluated.map, disagreement: this.evaluated.wrong }[settings.overlay];
    if (chosen) {
      const { width, height, ids } = chosen;
      const canvas = make("canvas", { width, height });
      const image = new ImageData(width, height);
      const colors = new Uint32Array(image.data.buffer);
      const stripes = settings.overlay === "disagreement";
      ids.forEach((id, i) => {
        if (!stripes) colors[i] = labels.table[id];
        // Stripes: what is below stays visible, and colour is not all that tells.
        else if (id) colors[i] = ((i % width) + Math.floor(i / width)) % 4 < 2 ? WRONG : 0x60000000;
      });
      canvas.getContext("2d").putImageData(image, 0, 0);
      layers.overlay = canvas;
    }
    this.studio.redraw();
  }

  async nearest() {
    const { result, api, settings } = this.studio;
    $("nearest-reason").textContent = "Looking through the training images: the first time this takes a while.";
    $("nearest-reason").hidden = false;
    const answer = await api.json("api/nearest", { body: { result: result.result } }).finally(() => {
      $("nearest-reason").hidden = true;
    });
    if (result !== this.studio.result) return;
    $("nearest-line").textContent = answer.line;
    $("nearest-line").classList.toggle("warning", answer.copy === true);
    $("nearest-own").src = api.url(`api/results/${result.result}/image`, {}, true);
    $("nearest-image").src = api.url(`api/data/${answer.item}/image`, { model: settings.model }, true);
    $("nearest-result").hidden = false;
    this.studio.say(answer.line);
  }
}
