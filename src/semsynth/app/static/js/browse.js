// The panels "Data" and "Objects": masks and images of the data set, and a shelf of its objects.

import { $, make, options, percent } from "./dom.js";
import { decodeIds } from "./png.js";

const PAGE = 24;
const AGAIN = 1500; // milliseconds, while the server counts
const DRAG_FROM = 6; // pixels that a pointer moves before a press is a drag

/** A list that is fetched page by page; the newest filter wins. */
class Paged {
  constructor(studio, path, list, more, entry) {
    Object.assign(this, { studio, path, list, more, entry, asked: 0, offset: 0 });
    more.addEventListener("click", () => this.#page());
  }

  async reset(parameters) {
    this.parameters = parameters;
    this.offset = 0;
    this.list.replaceChildren();
    return this.#page();
  }

  async #page() {
    const asked = ++this.asked;
    try {
      const parameters = { ...this.parameters, model: this.studio.settings.model, offset: this.offset, limit: PAGE };
      const page = await this.studio.api.json(this.path, { parameters });
      if (asked !== this.asked) return null;
      this.offset += page.items.length;
      this.list.append(...page.items.map((item) => this.entry(item)));
      this.more.hidden = this.offset >= page.total;
      return page;
    } catch (error) {
      this.studio.complain(error);
      return null;
    }
  }
}

export class Browse {
  constructor(studio) {
    this.studio = studio;
    this.shown = null;
    this.data = new Paged(studio, "api/data", $("data-list"), $("data-more"), (item) => this.#item(item));
    this.objects = new Paged(studio, "api/objects", $("objects-list"), $("objects-more"), (object) => this.#object(object));
    $("data-split").addEventListener("change", () => this.#data());
    $("data-class").addEventListener("change", () => this.#data());
    $("objects-class").addEventListener("change", () => this.#objects());
    $("object-pixels").addEventListener("change", () => studio.settings.set({ objectPixels: $("object-pixels").checked }));
    $("object-strength").addEventListener("change", () => studio.settings.set({ objectStrength: Number($("object-strength").value) }));
    $("object-strength").addEventListener("input", () => this.#strength(Number($("object-strength").value)));
    studio.settings.addEventListener("change", () => this.#pixels());
  }

  #strength(value) {
    document.querySelector("output[for=object-strength]").textContent = `${value}%`;
  }

  #pixels() {
    const { objectPixels, objectStrength } = this.studio.settings;
    $("object-pixels").checked = objectPixels;
    $("object-strength").value = objectStrength;
    $("object-strength").disabled = !objectPixels;
    this.#strength(objectStrength);
  }

  /** The data set of the server is known, or that there is none. */
  list() {
    const { state, labels } = this.studio;
    const none = "No data set is open: start with semsynth app --data PREPARED.";
    for (const id of ["data-filter", "objects-filter", "data-list", "objects-list", "objects-pixels"]) {
      $(id).hidden = !state.data;
    }
    if (!state.data) {
      $("data-note").textContent = $("objects-note").textContent = none;
      return;
    }
    const { name, splits, classes, labels_match: match } = state.data;
    $("data-note").textContent = [name, match].filter(Boolean).join(". ");
    options($("data-split"), [["", "all"], ...Object.entries(splits).map(([split, n]) => [split, `${split} (${n})`])]);
    this.#classes($("data-class"), classes);
    this.#classes($("objects-class"), classes);
  }

  /** Classes with what is known of each: share of the pixels, masks or objects that have it. */
  #classes(select, classes) {
    const pairs = classes.map(({ id, share, images, objects }) => {
      const facts = [images ?? objects, typeof share === "number" ? percent(share) : null];
      return [id, [this.studio.labels.name(id), ...facts.filter((fact) => fact !== null && fact !== undefined)].join(" · ")];
    });
    options(select, [["", "any, rare first"], ...pairs]);
  }

  /** A panel is shown: fetch what it lists, the first time and while the server still counts. */
  async open(panel) {
    this.shown = panel;
    if (!this.studio.state?.data) return;
    if (panel === "data" && !this.dataDone) this.dataDone = await this.#data();
    if (panel === "objects" && !this.objectsDone) this.objectsDone = await this.#objects();
  }

  /** Another model: its ids. */
  forget() {
    this.dataDone = this.objectsDone = false;
  }

  async #data() {
    const page = await this.data.reset({ split: $("data-split").value, class: $("data-class").value });
    const match = page?.labels_match ?? this.studio.state.data.labels_match;
    return this.#came(page, "data", [this.studio.state.data.name, match]);
  }

  async #objects() {
    const page = await this.objects.reset({ class: $("objects-class").value });
    return this.#came(page, "objects", ["Drag one to the mask or the image; or choose it, then click where it goes (Escape: none)"]);
  }

  /** Tell what a page says; returns whether it is complete. */
  #came(page, panel, lines) {
    if (!page) return false;
    if (page.classes) this.#classes($(`${panel}-class`), page.classes);
    const counted = page.indexed === undefined || page.indexed >= page.of;
    const parts = [...lines, counted ? "" : `Counted ${page.indexed} of ${page.of} masks so far`, page.problem, page.line];
    if (!page.items.length && counted) parts.push("None here");
    $(`${panel}-note`).textContent = parts.filter(Boolean).map((part) => part.replace(/\.$/, "")).join(". ");
    if (!counted) setTimeout(() => this.#watch(panel), AGAIN);
    return counted;
  }

  /** What is listed stays until all is counted; then it is listed again, rare classes first. Until
   * something is listed, the first that is found is. */
  async #watch(panel) {
    if (this.shown !== panel) return;
    try {
      const parameters = { model: this.studio.settings.model, offset: 0, limit: 1 };
      const { indexed, of, total } = await this.studio.api.json(`api/${panel}`, { parameters });
      const empty = !$(`${panel}-list`).children.length;
      if (indexed >= of || (empty && total > 0)) return this.open(panel);
      $(`${panel}-note`).textContent = $(`${panel}-note`).textContent.replace(/Counted \d+/, `Counted ${indexed}`);
      setTimeout(() => this.#watch(panel), AGAIN);
    } catch {
      // the list says it when it is asked for more
    }
  }

  #item(item) {
    const { api, labels, settings } = this.studio;
    const names = item.classes.map(([id, share]) => `${labels.name(id)} ${percent(share)}`).join(", ");
    const src = api.url(`api/data/${item.id}/thumbnail`, { model: settings.model }, true);
    const button = make(
      "button",
      { title: names, aria: { label: `${item.split}/${item.stem}: ${names}` } },
      make("img", { src, alt: "", loading: "lazy" }),
      make("span", { textContent: item.stem }),
    );
    button.addEventListener("click", () => this.use(item));
    return make("li", {}, button);
  }

  /** Begin from a mask of the data; its real image lies below. */
  async use(item) {
    const { api, settings } = this.studio;
    try {
      const blob = await api.blob(`api/data/${item.id}/mask`, { parameters: { model: settings.model } });
      const { width, height, ids } = await decodeIds(new Uint8Array(await blob.arrayBuffer()));
      this.studio.open(width, height, ids, item, await this.#numbers(item));
    } catch (error) {
      this.studio.complain(error);
    }
  }

  /** The objects of a mask of the data, where the model sees their borders. */
  async #numbers(item) {
    if (!item.instances || !this.studio.model.instance_edges) return undefined;
    const blob = await this.studio.api.blob(`api/data/${item.id}/instances`);
    const { ids } = await decodeIds(new Uint8Array(await blob.arrayBuffer()));
    const { document: map } = this.studio;
    const first = map.last;
    for (const id of ids) map.last = Math.max(map.last, first + id);
    return Uint32Array.from(ids, (id) => id && first + id);
  }

  /** After a reload: objects that the server does not have any more stay as class and shape. */
  async checkPlaced() {
    const { document: map, api } = this.studio;
    const ids = [...new Set([...map.placed.values()].map(({ id }) => id))];
    const missing = async (id) => {
      try {
        await api.blob(`api/objects/${id}/mask`);
      } catch (error) {
        return error.status === 404;
      }
      return false;
    };
    // A server that was restarted looks for them first.
    const gone = await Promise.all(ids.map(missing));
    if (!gone.includes(true)) return;
    for (const [number, { id }] of map.placed) if (gone[ids.indexOf(id)]) map.placed.delete(number);
    this.studio.saveMask();
    const line = "The data that are open do not have all objects of this mask: of those, class and shape stay.";
    this.studio.complain(new Error(line));
  }

  #object(object) {
    const { api, labels, settings } = this.studio;
    const name = labels.name(object.class);
    const src = api.url(`api/objects/${object.id}/picture`, { model: settings.model }, true);
    const button = make(
      "button",
      { title: `${name}, ${object.box[3]}x${object.box[2]} pixels`, aria: { label: `${name}, ${object.box[3]} by ${object.box[2]} pixels`, pressed: "false" } },
      make("img", { src, alt: "", loading: "lazy", draggable: false }),
      make("span", { textContent: name }),
    );
    this.#drag(button, object);
    return make("li", {}, button);
  }

  /** The object's pixels: as spans around its middle, and as they look. */
  async #take(object, button) {
    const { api, settings } = this.studio;
    const [blob, shown] = await Promise.all(["mask", "picture"].map((what) =>
      api.blob(`api/objects/${object.id}/${what}`, { parameters: { model: settings.model } })));
    const { width, height, ids } = await decodeIds(new Uint8Array(await blob.arrayBuffer()));
    const spans = [];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!ids[y * width + x]) continue;
        const start = x;
        while (x < width && ids[y * width + x]) x++;
        spans.push([y - (height >> 1), start - (width >> 1), x - 1 - (width >> 1)]);
      }
    }
    const picture = await createImageBitmap(shown);
    const [top, left] = [-(height >> 1), -(width >> 1)];
    this.studio.take({ id: object.class, object: object.id, spans, top, left, picture });
    for (const other of $("objects-list").querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
  }

  /** Press: the object is chosen. Press and drag: it is placed where the pointer is released. */
  #drag(button, object) {
    let start = null;
    let dragged = null;
    const take = () => this.#take(object, button).catch((error) => this.studio.complain(error));
    button.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      button.setPointerCapture(event.pointerId); // a quick move leaves it at once
      start = [event.clientX, event.clientY];
      dragged = null;
    });
    button.addEventListener("pointermove", (event) => {
      if (!start) return;
      if (!dragged && Math.hypot(event.clientX - start[0], event.clientY - start[1]) > DRAG_FROM) {
        dragged = take();
      }
      if (dragged) this.studio.hands.carry(event.clientX, event.clientY);
    });
    button.addEventListener("pointerup", async (event) => {
      start = null;
      if (!dragged) return;
      await dragged;
      this.studio.hands.drop(event.clientX, event.clientY);
      this.studio.take(null);
      button.setAttribute("aria-pressed", "false");
    });
    button.addEventListener("pointercancel", () => {
      start = dragged = null;
      this.studio.hands.carry(-1, -1);
    });
    button.addEventListener("click", () => {
      if (dragged) dragged = null; // the end of a drag
      else take();
    });
  }
}
