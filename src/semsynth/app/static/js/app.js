// The studio: what the parts share, and how they act on each other.

import { Api } from "./api.js";
import { Browse } from "./browse.js";
import { Check } from "./check.js";
import { Classes } from "./classes.js";
import { dialogs, showError, tabs, theme } from "./chrome.js";
import { $ } from "./dom.js";
import { Generator } from "./generator.js";
import { Hands } from "./hands.js";
import { IdMap } from "./idmap.js";
import { ImagePanel } from "./image-panel.js";
import { Keys } from "./keys.js";
import { LabelTable } from "./labels.js";
import { Layers } from "./layers.js";
import { MaskDocument } from "./document.js";
import { Out } from "./out.js";
import { decodeIds, encodeGrey } from "./png.js";
import { Session } from "./session.js";
import { OF_THE_IMAGE, Settings } from "./settings.js";
import { Strip, restored, stored } from "./strip.js";
import { makeTools } from "./tools.js";
import { Progress } from "./progress.js";
import { Variations } from "./variations.js";
import { Pane, View } from "./view.js";

const AGAIN = 3000; // milliseconds until the server is asked again

class Studio {
  constructor() {
    this.api = new Api();
    this.settings = new Settings();
    this.document = new MaskDocument(IdMap.filled(1, 1, 0));
    this.labels = new LabelTable([]);
    this.models = new Map();
    this.result = null;
    this.stamp = null;
    this.released = null;
    this.quiet = false;
    this.view = new View(this.document);
    this.layers = new Layers(this);
    this.tools = makeTools(this);
    this.panes = {
      mask: new Pane($("mask"), this.view, this.layers.ofMask()),
      image: new Pane($("image"), this.view, this.layers.ofImage(() => this.result?.bitmap)),
      compare: new Pane($("compared"), this.view, this.layers.ofCompared()),
    };
    this.hands = new Hands(this);
    this.generator = new Generator(this);
    this.classes = new Classes(this);
    this.panel = new ImagePanel(this);
    this.variations = new Variations(this);
    this.browse = new Browse(this);
    this.check = new Check(this);
    this.out = new Out(this);
    this.strip = new Strip(this);
    this.progress = new Progress(this);
    this.keys = new Keys(this);
    this.#listen();
  }

  get model() {
    return this.models.get(this.settings.model);
  }

  #listen() {
    const { document: map, generator, settings } = this;
    $("undo").addEventListener("click", () => this.undo());
    $("redo").addEventListener("click", () => this.redo());
    $("final").addEventListener("click", () => generator.make("final"));
    map.addEventListener("draw", ({ detail }) => {
      this.layers.redo(detail.bounds);
      this.redraw();
      generator.drawn();
    });
    map.addEventListener("size", () => {
      this.layers.redo();
      this.view.fit();
    });
    map.addEventListener("commit", () => this.#committed());
    generator.addEventListener("result", ({ detail }) => this.#arrived(detail));
    generator.addEventListener("settled", ({ detail }) => this.strip.add(detail.result));
    generator.addEventListener("error", ({ detail }) => this.complain(detail.error));
    settings.addEventListener("change", ({ detail }) => this.#changed(detail));
  }

  #committed() {
    this.#steps();
    this.saveMask();
    if (!this.quiet && this.state) this.generator.committed(this.released);
    this.#stale();
  }

  #steps() {
    const { done, undone } = this.document.history;
    $("undo").disabled = !done.length;
    $("redo").disabled = !undone.length;
  }

  #changed(keys) {
    if (keys.has("tool")) this.hands.putDown(this.tools[this.lastTool]?.tool);
    this.lastTool = this.settings.tool;
    if (keys.has("model") && this.model) this.#modelChanged();
    if (keys.has("compare")) this.#compareChanged();
    this.redraw();
    if (!this.state) return;
    this.session.save("settings", { ...this.settings.values(), modelName: this.model?.name });
    if (this.quiet || ![...keys].some((key) => OF_THE_IMAGE.has(key))) return;
    if (this.settings.live) this.generator.make("live");
    else this.#stale(true);
  }

  #modelChanged() {
    const had = this.labels.unlabelled;
    this.labels = new LabelTable(this.model.labels, this.model.unlabelled);
    if (this.settings.keep) this.settings.set({ keep: null }); // its image is the other model's
    this.#unlabelledIs(had);
    this.layers.redo();
    this.classes.reset();
    this.panel.reset();
    this.browse.forget();
    this.browse.list();
    this.redraw();
  }

  /** Pixels without a label keep being that, whichever id the model has for it. */
  #unlabelledIs(had) {
    const { labels, document: map } = this;
    if (had === labels.unlabelled || labels.byId.has(had)) return;
    const ids = map.map.ids.map((id) => (id === had ? labels.unlabelled : id));
    map.map.ids.set(ids);
  }

  #compareChanged() {
    const other = this.models.get(this.settings.compare);
    $("compare-name").textContent = other?.name ?? "";
    document.querySelector("[data-pane=compare]").hidden = !other;
    this.layers.compared = null;
    if (other && this.state && !this.quiet) this.generator.compare("live");
  }

  #arrived({ lane, result }) {
    if (lane === "compare") {
      this.layers.compared = result;
      $("compare-note").textContent = `${result.seconds.toFixed(2)} s`;
    } else this.#show(result);
    this.panes[lane === "compare" ? "compare" : "image"].drawNow();
  }

  #show(result) {
    this.result = result;
    this.check.clear();
    this.layers.redo();
    this.panes.mask.draw();
    showError(null); // the next image came: what was wrong is over
    const size = `${result.bitmap.width}×${result.bitmap.height}`;
    this.tell([`${size} in ${result.seconds.toFixed(2)} s`, `seed ${result.request.seed}`, result.note].filter(Boolean).join(" · "));
    $("image").setAttribute("aria-label", `Generated image, seed ${result.request.seed}`);
    if (!this.document.drawing) this.session.save("result", stored(result));
    this.#stale();
  }

  /** Say where the image is of an older mask, and where the mask is not of the model's size. */
  #stale(always = false) {
    const { result, document: map, settings, model } = this;
    const size = `${map.width}×${map.height}`;
    const [height, width] = model?.max_size ?? [map.height, map.width];
    const scaled = map.width > width || map.height > height;
    $("mask-note").textContent = scaled ? `${size}, scaled for the model (${width}×${height})` : size;
    const old = result && (always || !result.map.equals(map.map));
    $("image-note").textContent = old && !settings.live ? "older than the mask: press Enter" : (result?.quality === "final" ? "final" : "");
  }

  // ---- what the parts ask for

  redraw() {
    for (const pane of this.view.panes) pane.draw();
  }

  undo() {
    if (this.tools[this.settings.tool].tool.busy) this.tools[this.settings.tool].tool.back();
    else this.say(this.document.undo() ? "Undone" : "Nothing to undo");
  }

  redo() {
    this.say(this.document.redo() ? "Redone" : "Nothing to redo");
  }

  enter() {
    const { tool } = this.tools[this.settings.tool];
    if (tool.busy) tool.finish();
    else this.generator.make("final");
  }

  choose(tool) {
    this.stamp = null;
    this.settings.set({ tool });
    this.say(this.tools[tool].name);
  }

  /** Take an object of the shelf, or (null) put it back and take the tool before it again. */
  take(stamp) {
    if (this.settings.tool !== "stamp") this.beforeStamp = this.settings.tool;
    this.stamp = stamp;
    this.settings.set({ tool: stamp ? "stamp" : (this.beforeStamp ?? "brush") });
    for (const button of $("objects-list").querySelectorAll("button")) {
      if (!stamp) button.setAttribute("aria-pressed", "false");
    }
  }

  keep(on) {
    if (on && !this.result?.result) return this.complain(new Error("Keep the rest: there is no image yet."));
    if (on && this.result.map.ids.length !== this.document.map.ids.length) {
      return this.complain(new Error("Keep the rest: the image is of a mask of another size; generate it again."));
    }
    this.document.forgetTouched();
    this.settings.set({ keep: on ? this.result.result : null });
    this.say(on ? "The rest stays" : "All is made anew");
  }

  /** A mask in place of the one that is drawn. `item` of the data: its image lies below. */
  open(width, height, ids, item = null, numbers = undefined) {
    const source = item && item.image !== false ? { id: item.id, name: item.stem, path: `api/data/${item.id}/image` } : null;
    const changed = { keep: null, maskSource: item?.id ?? null, source };
    if (!source) changed.useSource = false;
    this.quiet = true;
    this.settings.set(changed);
    this.quiet = false;
    this.#loadSource();
    this.document.replace(new IdMap(width, height, ids, numbers));
  }

  async #loadSource() {
    const { source } = this.settings;
    this.layers.source = null;
    if (!source) return;
    try {
      const bitmap = await createImageBitmap(await this.api.blob(source.path));
      if (this.settings.source?.id === source.id) this.layers.source = bitmap;
      this.redraw();
    } catch (error) {
      this.complain(error);
    }
  }

  /** A source image of the user's own. */
  async upload(file) {
    if (!file) return;
    const { upload_bytes: most } = this.state.limits;
    try {
      if (file.size > most) throw new Error(`${file.name}: ${(file.size / 1e6).toFixed(1)} MB; at most ${most / 1e6} MB`);
      const { id } = await this.api.upload(file);
      this.settings.set({ source: { id, name: file.name, path: `api/uploads/${id}/image` }, useSource: true });
      this.#loadSource();
    } catch (error) {
      this.complain(error);
    }
  }

  /** Go back to a result: its mask, its seed, its image. Nothing is generated. */
  adopt(result) {
    const { request } = result;
    this.generator.stop("image");
    this.quiet = true;
    if (!result.map.equals(this.document.map)) this.document.replace(result.map.copy());
    const model = this.models.has(request.model) ? { model: request.model } : {};
    this.settings.set({ ...model, seed: request.seed, towards: request.variation ?? null });
    this.quiet = false;
    this.#show(result);
    this.panes.image.drawNow();
    this.strip.add(result);
    this.generator.compare(result.quality);
  }

  /** The result that is shown; an Error where there is none. */
  current() {
    if (!this.result?.result) throw new Error("There is no image yet: press Enter to generate one.");
    return this.result;
  }

  maskOf({ map }) {
    return encodeGrey(map.width, map.height, map.ids);
  }

  pointed(pixel) {
    $("cursor").textContent = pixel ? this.describe(pixel) : "";
    this.redraw();
  }

  describe([x, y]) {
    const { map } = this.document;
    return `${x}, ${y}: ${map.inside(x, y) ? this.labels.name(map.get(x, y)) : "outside"}`;
  }

  /** A line for screen readers. */
  say(line) {
    $("spoken").textContent = line;
  }

  /** The line at the bottom. */
  tell(line) {
    $("status").textContent = line;
  }

  complain(error) {
    showError(error.message);
  }

  // ---- start, and what survives a reload

  saveMask() {
    const { map, placed, last } = this.document;
    this.session?.save("mask", map.packed());
    this.session?.save("objects", { placed: [...placed], last });
  }

  async start() {
    this.session = await Session.start();
    const state = await this.#state();
    for (const model of state.models) this.models.set(model.id, model);
    this.quiet = true;
    const kept = (await this.session.load("settings")) ?? {};
    const usual = state.models.find((model) => model.default) ?? state.models[0];
    const same = state.models.find(({ name }) => name === kept.modelName);
    if (!same) kept.keep = null; // a server of other models: its results are not this one's
    kept.model = (same ?? usual).id;
    if (!this.models.has(kept.compare)) kept.compare = "";
    if (!(kept.tool in this.tools) || kept.tool === "stamp") kept.tool = "brush";
    this.state = state;
    this.settings.set(kept);
    this.panel.list();
    this.check.list();
    this.out.list();
    const again = await this.#restore();
    this.quiet = false;
    if (!again) await this.#first();
    this.document.history.done = [];
    this.#steps();
    document.body.dataset.ready = "true";
    this.browse.checkPlaced();
  }

  async #state() {
    for (;;) {
      try {
        const state = await this.api.json("api/state");
        showError(null);
        return state;
      } catch (error) {
        this.complain(error);
        await new Promise((done) => setTimeout(done, AGAIN));
      }
    }
  }

  /** Mask, image and strip as they were; false where there were none. */
  async #restore() {
    const mask = await this.session.load("mask");
    if (!mask) return false;
    const map = IdMap.unpacked(mask);
    const { placed, last } = (await this.session.load("objects")) ?? { placed: [], last: 0 };
    this.document.last = last;
    for (const [number, of] of placed) this.document.placed.set(number, of);
    this.document.replace(map);
    await this.strip.load(await this.session.load("strip"));
    const result = await this.session.load("result");
    if (result) this.#show(await restored(result));
    this.#loadSource();
    if (!result?.map?.equals?.(map) && this.settings.live) this.generator.make("live");
    return true;
  }

  /** The first mask: one of the data, else an example of the package, else two halves. */
  async #first() {
    const [height, width] = this.model.size;
    const model = this.settings.model;
    try {
      if (this.state.data) {
        const { items } = await this.api.json("api/data", { parameters: { offset: 0, limit: 1, model } });
        if (items.length) return await this.browse.use(items[0]);
      } else if (this.model.example) {
        const blob = await this.api.blob("api/example", { parameters: { model } });
        const { width: w, height: h, ids } = await decodeIds(new Uint8Array(await blob.arrayBuffer()));
        return this.open(w, h, ids);
      }
    } catch (error) {
      this.complain(error);
    }
    const map = IdMap.filled(width, height, this.labels.usable[0]?.id ?? this.labels.unlabelled);
    if (this.labels.usable.length > 1) map.ids.fill(this.labels.usable[1].id, 0, width * (height >> 1));
    this.open(width, height, map.ids);
  }
}

export const studio = new Studio();
theme();
tabs((panel) => studio.browse.open(panel));
dialogs(studio);
studio.started = studio.start().catch((error) => studio.complain(error));
window.addEventListener("error", ({ message }) => studio.complain(new Error(`The page has a fault: ${message}`)));
