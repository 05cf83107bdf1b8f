// From the mask to images: live after each stroke, the newest wins, refined when the user rests.
// Events: "result" {lane, result}, "busy" {}, "error" {error}, "settled" {result}.

import { superseded } from "./api.js";
import { encodeGrey } from "./png.js";

const REST = 900; // milliseconds without a stroke
const FAST = 0.35; // seconds: a model this fast also follows the brush

export class Generator extends EventTarget {
  constructor(studio) {
    super();
    this.studio = studio;
    this.client = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");
    this.number = 0;
    this.lanes = new Map(); // lane to {number, abort, quality}
    this.seconds = Infinity;
    this.again = false;
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** The settings as the server takes them. */
  request(lane, quality, changes = {}) {
    const { settings, models } = this.studio;
    const model = models.get(changes.model ?? settings.model);
    const request = {
      client: this.client, lane, number: ++this.number, model: model.id, seed: settings.seed, quality,
    };
    if (settings.towards) request.variation = settings.towards;
    if (quality === "final" && model.id === settings.model) {
      if (!model.why_no_guidance && settings.guidance !== null) request.guidance = settings.guidance;
      if (settings.steps !== null) request.steps = settings.steps;
      if (!model.why_no_scheduler && settings.scheduler) request.scheduler = settings.scheduler;
    }
    if (settings.keep && model.id === settings.model) {
      Object.assign(request, { source: settings.keep, keep: true, strength: settings.keepStrength / 100 });
    } else if (settings.useSource && settings.source) {
      Object.assign(request, { source: settings.source.id, strength: settings.strength / 100 });
    }
    return { ...request, ...changes };
  }

  /**
   * The map of objects that goes with a mask, or null where it says nothing to the server: for
   * models that see borders of objects, and objects of the shelf, which are added to the request.
   */
  #objects(map, request) {
    const { settings, models, document } = this.studio;
    const { numbers, plane } = map.objects();
    const placed = numbers.flatMap((number, i) => {
      const of = document.placed.get(number);
      return of && settings.objectPixels ? [{ number: i + 1, ...of }] : [];
    });
    if (placed.length) Object.assign(request, { objects: placed, object_strength: settings.objectStrength / 100 });
    return placed.length || (numbers.length && models.get(request.model).instance_edges) ? plane : null;
  }

  /** Ask for an image; null where a newer request of the lane took its place. */
  async ask(lane, quality, changes = {}) {
    this.lanes.get(lane)?.abort.abort();
    const request = this.request(lane, quality, changes);
    const own = { number: request.number, abort: new AbortController(), quality, started: performance.now() };
    this.lanes.set(lane, own);
    this.#tell("busy");
    try {
      const { document, masks, models } = this.studio;
      const { translated: map, unknown } = masks.for(models.get(request.model), document.map.copy());
      const objects = this.#objects(map, request);
      const region = request.keep ? await encodeGrey(map.width, map.height, document.touched) : null;
      const instances = objects && (await encodeGrey(map.width, map.height, objects));
      const mask = await encodeGrey(map.width, map.height, map.ids);
      if (own.abort.signal.aborted) return null;
      const answer = await this.studio.api.generate(request, { mask, region, instances }, own.abort.signal);
      const bitmap = await createImageBitmap(answer.blob);
      if (this.lanes.get(lane) !== own) return null;
      const lost = unknown.length ? `unlabelled for it: ${unknown.join(", ")}` : "";
      return { ...answer, bitmap, map, request, quality, lost };
    } catch (error) {
      if (superseded(error) || this.lanes.get(lane) !== own) return null;
      this.#tell("error", { error });
      return null;
    } finally {
      if (this.lanes.get(lane) === own) this.lanes.delete(lane);
      this.#tell("busy");
    }
  }

  /** The image of the mask as it is. `released`: when the pointer was, for measurements. */
  async make(quality, released = null) {
    clearTimeout(this.rest);
    const { settings, document } = this.studio;
    if (!settings.model) return;
    if (settings.keep && !document.touched.some((value) => value)) return;
    const result = await this.ask("image", quality);
    if (!result) return;
    this.seconds = result.seconds;
    this.#tell("result", { lane: "image", result });
    if (released !== null) await shown("release to pixels", released);
    if (document.drawing) {
      if (this.again) this.#follow();
      return;
    }
    this.compare(quality);
    this.rest = setTimeout(() => this.#rested(result), quality === "final" ? 0 : REST);
  }

  #rested(result) {
    const { settings, models } = this.studio;
    const more = (models.get(settings.model)?.refines || result.request.objects) && result.quality === "live";
    if (more && settings.refine && settings.live) this.make("final");
    else this.#tell("settled", { result });
  }

  /** The other model's image of the same mask. */
  async compare(quality) {
    const model = this.studio.settings.compare;
    if (!model) return;
    const result = await this.ask("compare", quality, { model });
    if (result) this.#tell("result", { lane: "compare", result });
  }

  /** While a stroke is drawn: one image after the other, as fast as they come. */
  #follow() {
    this.again = false;
    this.make("live");
  }

  drawn() {
    clearTimeout(this.rest);
    const { settings, document } = this.studio;
    if (!settings.live || !document.drawing || this.seconds > FAST) return;
    if (this.lanes.has("image")) this.again = true;
    else this.#follow();
  }

  /** The stroke is done. */
  committed(released) {
    this.again = false;
    clearTimeout(this.rest);
    if (this.studio.settings.live) this.make("live", released);
    else this.stop("image"); // an image that is still made is of an older mask
  }

  stop(lane) {
    const own = this.lanes.get(lane);
    if (!own) return;
    this.lanes.delete(lane);
    own.abort.abort();
    const body = { client: this.client, lane };
    this.studio.api.text("api/cancel", { body }).catch(() => {}); // it has gone anyway
    this.#tell("busy");
  }

  /** Where the request of a lane stands: {position, step, steps} or null. */
  async progress(lane) {
    const { lanes } = await this.studio.api.json("api/queue", { parameters: { client: this.client } });
    return lanes[lane] ?? null;
  }
}

/** Record how long it took until what was just drawn is on the screen. */
async function shown(name, start) {
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  performance.measure(name, { start, end: performance.now() });
}
