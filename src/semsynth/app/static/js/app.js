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
import { Masks } from "./masks.js";
import { Out } from "./out.js";
import { encodeGrey } from "./png.js";
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
    this.masks = new Masks(this);
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
    $("rescale").addEventListener("click", () => this.masks.rescale());
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
    this.steps();
    this.saveMask();
    if (!this.quiet && this.state) this.generator.committed(this.released);
    this.#stale();
  }

  /** What of undo and redo is possible. */
  steps() {
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
    const { labels, unlabelled } = this.model ?? {};
    this.session.save("settings", { ...this.settings.values(), modelName: this.model?.name, labels, unlabelled });
    if (this.quiet || this.masks.opening || ![...keys].some((key) => OF_THE_IMAGE.has(key))) return;
    if (this.settings.live) this.generator.make("live");
    else this.#stale(true);
  }

  #modelChanged() {
    const had = this.labels;
    this.labels = new LabelTable(this.model.labels, this.model.unlabelled);
    if (this.settings.keep) this.settings.set({ keep: null }); // its image is the other model's
    if (had.labels.length && had.key !== this.labels.key) this.masks.changed(had);
    this.layers.redo();
    this.classes.reset();
    this.panel.reset();
    this.browse.forget();
    this.browse.list();
    this.redraw();
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
      $("compare-note").textContent = [`${result.seconds.toFixed(2)} s`, result.lost].filter(Boolean).join(" · ");
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

  /** Say where the image is of an older mask, and what is to be known of the mask. */
  #stale(always = false) {
    const { result, document: map, settings } = this;
    this.masks.note();
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
    this.say(on ? "The rest stays" : "Everything is regenerated");
  }

  /** A mask in place of the one that is drawn: see `Masks`. */
  open(...mask) {
    this.masks.open(...mask);
  }

  /** Go back to a result: its mask, its seed, its image. Nothing is generated. */
  adopt(result) {
    const { request } = result;
    this.generator.stop("image");
    this.quiet = true;
    this.masks.given = result.map;
    const model = this.models.has(request.model) ? { model: request.model } : {};
    this.settings.set({ ...model, seed: request.seed, towards: request.variation ?? null });
    this.masks.given = null;
    if (!result.map.equals(this.document.map)) this.document.replace(result.map.copy());
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

  /**
   * The number that what is drawn from a pixel on has. For a model that sees borders of objects it
   * is a new object, or goes on with the one of its class that it begins in; for others 0: none.
   */
  objectAt(x, y, id) {
    const { map } = this.document;
    if (!this.model?.instance_edges || !this.labels.isThing(id)) return 0;
    const inside = map.inside(x, y) && map.get(x, y) === id;
    return inside ? map.numbers[y * map.width + x] : this.document.number();
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
    const again = await this.#restore(kept);
    this.quiet = false;
    if (!again) await this.masks.first();
    this.document.history.done = [];
    this.steps();
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
  async #restore({ labels, unlabelled }) {
    const mask = await this.session.load("mask");
    if (!mask) return false;
    const had = labels ? new LabelTable(labels, unlabelled) : this.labels;
    const same = had.key === this.labels.key; // else a server of other models: ids mean other classes now
    const { translated, shared } = same ? {} : had.translated(IdMap.unpacked(mask), this.labels);
    if (!same && !shared) return false;
    const map = translated ?? IdMap.unpacked(mask);
    const { placed, last } = (await this.session.load("objects")) ?? { placed: [], last: 0 };
    this.document.last = last;
    for (const [number, of] of placed) this.document.placed.set(number, of);
    this.document.replace(map);
    if (same) await this.strip.load(await this.session.load("strip"));
    const result = same && (await this.session.load("result"));
    if (result) this.#show(await restored(result));
    this.masks.loadSource();
    if (!result?.map?.equals?.(map) && this.settings.live) this.generator.make("live");
    return true;
  }
}

export const studio = new Studio();
theme();
tabs((panel) => studio.browse.open(panel));
dialogs(studio);
studio.started = studio.start().catch((error) => studio.complain(error));
window.addEventListener("error", ({ message }) => studio.complain(new Error(`The page has a fault: ${message}`)));
