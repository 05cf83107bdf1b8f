// Which mask is drawn: one that is opened, the first one, and what becomes of it where a model of
// other labels is chosen.

import { $ } from "./dom.js";
import { IdMap } from "./idmap.js";
import { LabelTable } from "./labels.js";
import { decodeIds } from "./png.js";

export class Masks {
  constructor(studio) {
    this.studio = studio;
    this.left = new Map(); // labels, as a text, to what was drawn in them
    this.given = null; // the mask that comes with a model that is chosen
    this.word = ""; // what happened to the mask that is drawn
    this.opening = false; // whether a first mask is on its way
  }

  /** A mask in place of the one that is drawn. `item` of the data: its image lies below. */
  open(width, height, ids, item = null, numbers = undefined) {
    const source = item && item.image !== false ? { id: item.id, name: item.stem, path: `api/data/${item.id}/image` } : null;
    const changed = { keep: null, maskSource: item?.id ?? null, source };
    if (!source) changed.useSource = false;
    this.word = "";
    this.#quietly(() => this.studio.settings.set(changed));
    this.loadSource();
    this.studio.document.replace(new IdMap(width, height, ids, numbers));
  }

  #quietly(act) {
    const was = this.studio.quiet;
    this.studio.quiet = true;
    act();
    this.studio.quiet = was;
  }

  async loadSource() {
    const { settings, layers, api } = this.studio;
    const { source } = settings;
    layers.source = null;
    if (!source) return;
    try {
      const bitmap = await createImageBitmap(await api.blob(source.path));
      if (settings.source?.id === source.id) layers.source = bitmap;
      this.studio.redraw();
    } catch (error) {
      this.studio.complain(error);
    }
  }

  /** A source image of the user's own. */
  async upload(file) {
    if (!file) return;
    const { state, api, settings } = this.studio;
    const { upload_bytes: most } = state.limits;
    try {
      if (file.size > most) throw new Error(`${file.name}: ${(file.size / 1e6).toFixed(1)} MB; at most ${most / 1e6} MB`);
      const { id } = await api.upload(file);
      settings.set({ source: { id, name: file.name, path: `api/uploads/${id}/image` }, useSource: true });
      this.loadSource();
    } catch (error) {
      this.studio.complain(error);
    }
  }

  /** The first mask of a model: one of the data, else an example of the package, else two halves. */
  async first() {
    this.opening = true;
    try {
      await this.#first();
    } finally {
      this.opening = false;
    }
  }

  async #first() {
    const { model, state } = this.studio;
    const known = state.data?.models.includes(model.id);
    const ways = [known && (() => this.#ofData(model)), model.example && (() => this.#example(model))];
    let problem = null;
    for (const way of ways.filter(Boolean)) {
      try {
        if (await way()) return;
      } catch (error) {
        problem ??= error;
      }
    }
    if (this.studio.model !== model) return; // another one was chosen meanwhile
    this.#halves(model);
    if (problem) this.studio.complain(problem);
  }

  async #ofData(model) {
    const parameters = { offset: 0, limit: 1, model: model.id };
    const { items } = await this.studio.api.json("api/data", { parameters });
    if (!items.length) return false;
    if (this.studio.model === model) await this.studio.browse.use(items[0]);
    return true;
  }

  async #example(model) {
    const blob = await this.studio.api.blob("api/example", { parameters: { model: model.id } });
    const { width, height, ids } = await decodeIds(new Uint8Array(await blob.arrayBuffer()));
    if (this.studio.model === model) this.open(width, height, ids);
    return true;
  }

  #halves({ size: [height, width] }) {
    const { usable, unlabelled } = this.studio.labels;
    const map = IdMap.filled(width, height, usable[0]?.id ?? unlabelled);
    if (usable.length > 1) map.ids.fill(usable[1].id, 0, width * (height >> 1));
    this.open(width, height, map.ids);
  }

  /**
   * A model of other labels is shown. Ids mean other classes now: those of the mask become the ids
   * of the same names, other pixels unlabelled. Where no name is the same, the model has a mask of
   * its own. Who comes back and has drawn nothing meanwhile finds all as it was.
   */
  changed(had) {
    const { labels, document: map, settings } = this.studio;
    const { translated, shared, unknown } = had.translated(map.map, labels);
    const { source, maskSource, useSource, classId } = settings;
    this.left.set(had.key, { state: map.leave(), settings: { source, maskSource, useSource, classId } });
    const before = this.left.get(labels.key);
    const drawn = this.came && !this.came.equals(map.map);
    this.word = "";
    this.studio.result = null; // its mask has other ids
    const same = labels.usable.find(({ name }) => name === had.name(settings.classId));
    settings.set({ classId: (same ?? labels.usable[0])?.id ?? labels.unlabelled });
    const none = { source: null, maskSource: null, useSource: false };
    if (before && (this.given || !(drawn && shared))) this.#enter(before.state, before.settings);
    else if (this.given) this.#enter({ map: this.given.copy() }, none);
    else if (shared) {
      this.word = unknown.length ? `unlabelled: no ${unknown.join(", ")} in ${this.studio.model.name}` : "";
      this.#enter({ map: translated, placed: map.placed, last: map.last }, {});
    } else {
      this.#enter({ map: IdMap.filled(map.width, map.height, labels.unlabelled) }, none);
      const { history } = map;
      this.first().then(() => {
        history.done = []; // there is nothing before the first mask
        this.studio.steps();
      });
    }
  }

  #enter(state, settings) {
    this.#quietly(() => {
      this.studio.settings.set(settings);
      this.studio.document.enter(state);
    });
    this.came = this.studio.document.map.copy();
    this.loadSource();
  }

  /** The map with the ids of another model's labels, for that model to make an image of. */
  for(model, map) {
    const { labels } = this.studio;
    const others = new LabelTable(model.labels, model.unlabelled);
    return others.key === labels.key ? { translated: map, unknown: [] } : labels.translated(map, others);
  }

  /** Whether two models have a class in common. */
  share(one, other) {
    const names = new Set(one.labels.filter(({ ignored }) => !ignored).map(({ name }) => name));
    return other.labels.some(({ name, ignored }) => !ignored && names.has(name));
  }

  /** Scale the mask to the model's size; objects keep class and shape, and lose pixels of their own. */
  rescale() {
    const { document: map, model, settings } = this.studio;
    const [height, width] = model.size;
    if (settings.keep) settings.set({ keep: null });
    map.replace(map.scaled(width, height));
    this.studio.say(`Scaled to ${width} by ${height}`);
  }

  /** The line below the mask: its size, and what is to be known of it. */
  note() {
    const { document: map, model } = this.studio;
    const [height, width] = model?.size ?? [map.height, map.width];
    const other = map.width !== width || map.height !== height;
    const size = `${map.width}×${map.height}${other ? `, scaled for the model (${width}×${height})` : ""}`;
    $("mask-note").textContent = [size, this.word].filter(Boolean).join(" · ");
    $("mask-note").title = $("mask-note").textContent; // a narrow window shows the beginning alone
    $("rescale").hidden = !other;
    $("rescale").title = `Scale the mask itself to ${width}×${height}`;
  }
}
