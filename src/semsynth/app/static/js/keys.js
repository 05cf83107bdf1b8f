// Toolbar, options over the panes, and the keys for all of it.

import { $, icon, make } from "./dom.js";

const SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];

export class Keys {
  constructor(studio) {
    this.studio = studio;
    this.#tools();
    this.#options();
    this.table = this.#table();
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keyup", (event) => {
      if (event.key === " ") studio.hands.space = false;
    });
    const help = $("help-keys");
    for (const { shown, name } of this.table) {
      help.append(make("dt", {}, make("kbd", { textContent: shown })), make("dd", { textContent: name }));
    }
  }

  #tools() {
    const { studio } = this;
    const buttons = Object.entries(studio.tools).filter(([, { hidden }]) => !hidden).map(([id, { name, key }]) =>
      make("button", {
        className: "icon",
        title: `${name} (${key.toUpperCase()})`,
        aria: { label: name, pressed: "false", keyshortcuts: key },
        data: { tool: id },
        on: { click: () => studio.choose(id) },
      }, icon(id)));
    $("tools").append(...buttons);
    const press = () => buttons.forEach((button) =>
      button.setAttribute("aria-pressed", button.dataset.tool === studio.settings.tool));
    studio.settings.addEventListener("change", press);
    press();
  }

  #options() {
    const { settings, view } = this.studio;
    const slider = (id, key, text) => {
      $(id).addEventListener("input", () => settings.set({ [key]: Number($(id).value) }));
      const show = () => {
        $(id).value = settings[key];
        $(`${id}-value`).textContent = text(settings[key]);
      };
      settings.addEventListener("change", ({ detail }) => detail.has(key) && show());
      show();
    };
    slider("size", "size", (size) => `${size} px`);
    slider("opacity", "opacity", (value) => `${value}%`);
    $("underlay").addEventListener("change", () => settings.set({ underlay: $("underlay").checked }));
    const switches = document.querySelectorAll("[data-show]");
    switches.forEach((button) => button.addEventListener("click", () => settings.set({ show: button.dataset.show })));
    const show = () => {
      $("underlay").checked = settings.underlay;
      switches.forEach((button) => button.setAttribute("aria-pressed", button.dataset.show === settings.show));
      document.body.dataset.show = settings.show;
    };
    settings.addEventListener("change", show);
    show();
    $("zoom-in").addEventListener("click", () => view.zoom(1.5));
    $("zoom-out").addEventListener("click", () => view.zoom(1 / 1.5));
    $("zoom-fit").addEventListener("click", () => view.fit());
    view.addEventListener("change", () => {
      $("zoom-value").textContent = `${Math.round(100 * view.scale)}%`;
      $("zoom-fit").setAttribute("aria-label", `Fit to the window; now ${Math.round(100 * view.scale)}%`);
    });
  }

  resize(direction) {
    const { settings } = this.studio;
    const next = direction > 0
      ? SIZES.find((size) => size > settings.size)
      : SIZES.findLast((size) => size < settings.size);
    if (next) settings.set({ size: next });
    this.studio.say(`Size ${settings.size}`);
  }

  #table() {
    const { studio } = this;
    const { settings, view } = studio;
    const press = (id) => () => $(id).click();
    const views = ["both", "mask", "image"];
    const tools = Object.entries(studio.tools).filter(([, { key }]) => key).map(([id, { name, key }]) => (
      { keys: [key], shown: key.toUpperCase(), name, act: () => studio.choose(id) }));
    return [
      { keys: [], shown: "1 … 9, 0", name: "Class" },
      ...tools,
      { keys: ["["], shown: "[", name: "Smaller brush", act: () => this.resize(-1) },
      { keys: ["]"], shown: "]", name: "Larger brush", act: () => this.resize(1) },
      { keys: ["ctrl+z"], shown: "Ctrl+Z", name: "Undo", act: () => studio.undo() },
      { keys: ["ctrl+shift+z", "ctrl+y"], shown: "Ctrl+Shift+Z", name: "Redo", act: () => studio.redo() },
      { keys: ["+", "="], shown: "+", name: "Zoom in", act: () => view.zoom(1.5) },
      { keys: ["-"], shown: "-", name: "Zoom out", act: () => view.zoom(1 / 1.5) },
      { keys: ["f"], shown: "F", name: "Fit to the window", act: () => view.fit() },
      { keys: ["v"], shown: "V", name: "Both, mask, image", act: () =>
        settings.set({ show: views[(views.indexOf(settings.show) + 1) % 3] }) },
      { keys: ["s"], shown: "S", name: "Another seed", act: press("new-seed") },
      { keys: ["k"], shown: "K", name: "Keep the rest", act: press("keep") },
      { keys: ["enter"], shown: "Enter", name: "Final image; ends a polygon", act: () => studio.enter() },
      { keys: ["escape"], shown: "Esc", name: "Cancel what is drawn", act: () => studio.hands.escape() },
      { keys: ["ctrl+s"], shown: "Ctrl+S", name: "Save the pair", act: press("save") },
      { keys: ["?"], shown: "?", name: "These keys", act: press("help") },
    ];
  }

  #key(event) {
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    const types = target.matches("textarea, select, input:not([type=range], [type=checkbox])");
    const command = event.ctrlKey || event.metaKey;
    const name = `${command ? "ctrl+" : ""}${command && event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
    if (types && name !== "ctrl+s") return;
    if (event.altKey) return;
    if (!command && /^[0-9]$/.test(event.key)) {
      this.studio.classes.digit(Number(event.key));
      return;
    }
    const onControl = target.matches("button, a, input, summary, [role=tab]");
    if (onControl && (name === "enter" || name === " ")) return; // theirs
    if (name === " ") {
      this.studio.hands.space = true;
      return event.preventDefault();
    }
    const found = this.table.find(({ keys }) => keys.includes(name));
    if (!found) return;
    event.preventDefault();
    found.act();
  }
}
