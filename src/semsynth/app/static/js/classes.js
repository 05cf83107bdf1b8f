// The classes: buttons with name, colour and share of the pixels, and a search where they are many.

import { $, make, percent } from "./dom.js";

const SEARCH_FROM = 10;

export class Classes {
  constructor(studio) {
    this.studio = studio;
    this.list = $("class-list");
    this.search = $("class-search");
    this.search.addEventListener("input", () => this.#fill());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.shown.length) this.choose(this.shown[0].id);
      else if (event.key === "Escape") this.search.value = "";
      else return;
      this.#fill();
    });
    this.list.addEventListener("keydown", (event) => this.#arrows(event));
    studio.settings.addEventListener("change", ({ detail }) => detail.has("classId") && this.#press());
    studio.document.addEventListener("commit", () => this.count());
  }

  choose(id) {
    const { settings } = this.studio;
    settings.set({ classId: id, ...(["eraser", "hand", "eyedropper", "stamp"].includes(settings.tool) && { tool: "brush" }) });
  }

  /** Digit keys: 1 to 9 and 0 for the first ten that are listed. */
  digit(digit) {
    const label = this.shown[digit === 0 ? 9 : digit - 1];
    if (!label) return;
    this.choose(label.id);
    this.studio.say(label.name);
  }

  /** The labels are those of another model. */
  reset() {
    const { labels, settings } = this.studio;
    $("class-search-field").hidden = labels.usable.length < SEARCH_FROM;
    this.search.value = "";
    if (!labels.knows(settings.classId)) settings.set({ classId: labels.usable[0]?.id ?? labels.unlabelled });
    this.#fill();
    this.count();
  }

  #fill() {
    const { labels } = this.studio;
    this.shown = labels.search(this.search.value);
    const rows = this.shown.map((label, i) => this.#row(label.id, label.name, i < 10 ? (i + 1) % 10 : ""));
    if (!this.search.value) rows.push(this.#row(labels.unlabelled, "unlabelled", ""));
    this.list.replaceChildren(...rows);
    if (!rows.length) this.list.append(make("p", { className: "note", textContent: "No class of that name." }));
    this.#press();
    this.#shares();
  }

  #row(id, name, digit) {
    const swatch = make("span", { className: "swatch" });
    if (this.studio.labels.isUnlabelled(id)) swatch.classList.add("none");
    else swatch.style.background = this.studio.labels.css(id);
    return make(
      "button",
      { data: { id }, title: digit === "" ? name : `${name} (${digit})`, on: { click: () => this.choose(id) } },
      swatch,
      make("span", { className: "name", textContent: name }),
      make("span", { className: "share" }),
      make("kbd", { textContent: digit, aria: { hidden: "true" } }),
    );
  }

  #press() {
    const buttons = [...this.list.querySelectorAll("button")];
    const chosen = buttons.find((button) => Number(button.dataset.id) === this.studio.settings.classId);
    for (const button of buttons) {
      button.setAttribute("aria-pressed", button === chosen);
      button.tabIndex = button === (chosen ?? buttons[0]) ? 0 : -1;
    }
    chosen?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #arrows(event) {
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const moves = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    if (at < 0 || !(event.key in moves)) return;
    event.preventDefault();
    const next = buttons[(at + moves[event.key] + buttons.length) % buttons.length];
    this.choose(Number(next.dataset.id));
    next.focus();
  }

  /** Count the pixels of each class again. */
  count() {
    const { document: map, labels } = this.studio;
    const total = map.map.ids.length;
    this.share = new Map();
    this.unknown = [];
    for (const [id, count] of map.map.counts()) {
      const key = labels.isUnlabelled(id) ? labels.unlabelled : id;
      if (!labels.knows(id)) this.unknown.push([id, count / total]);
      this.share.set(key, (this.share.get(key) ?? 0) + count / total);
    }
    this.#shares();
    this.#note();
  }

  #shares() {
    if (!this.share) return;
    for (const button of this.list.querySelectorAll("button")) {
      const share = this.share.get(Number(button.dataset.id)) ?? 0;
      button.querySelector(".share").textContent = share ? percent(share) : "";
    }
  }

  /** A clear word about pixels without a label, and about ids that the model does not know. */
  #note() {
    const { labels, model } = this.studio;
    const lines = this.unknown.map(
      ([id, share]) =>
        `Id ${id} (${percent(share)}) is not a class of this model: shown in magenta.`);
    const none = this.share.get(labels.unlabelled) ?? 0;
    if (none && model) {
      const word = model.partial ? "the model chooses what is there." : (model.why_not_partial ?? "this model was not trained for that.");
      lines.push(`${percent(none)} unlabelled: ${word}`);
    }
    const note = $("partial");
    note.textContent = lines.join(" ");
    note.hidden = !lines.length;
    note.classList.toggle("warning", Boolean(this.unknown.length || (none && !model?.partial)));
  }
}
