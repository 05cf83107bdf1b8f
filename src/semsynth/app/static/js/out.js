// The panel "Save": the pair into a data set folder, downloads, the session as zip, lines of Python.

import { $, action, download, options } from "./dom.js";

export class Out {
  constructor(studio) {
    this.studio = studio;
    action($("save"), studio, () => this.save());
    action($("zip"), studio, () => this.zip());
    action($("python"), studio, () => this.python());
    $("python-copy").addEventListener("click", () => this.#copy());
    for (const button of document.querySelectorAll("[data-download]")) {
      action(button, studio, async () => {
        const { result } = studio.current();
        const blob = await studio.api.blob(`api/results/${result}/${button.dataset.download}`);
        this.#store(blob, `${result}_${button.dataset.download}.png`);
      });
    }
  }

  list() {
    const { state } = this.studio;
    $("save-to").textContent = state.save_to ? `Saved in ${state.save_to}; semsynth prepare and augment read it.` : "";
    const splits = state.data ? Object.keys(state.data.splits) : ["train", "val"];
    options($("save-split"), splits.map((split) => [split, split]));
  }

  #store(blob, name) {
    const href = URL.createObjectURL(blob);
    download(href, name);
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }

  async save() {
    const result = this.studio.current();
    const { settings, api } = this.studio;
    const request = { result: result.result, split: $("save-split").value, model: settings.model };
    if (settings.maskSource) request.mask_source = settings.maskSource;
    const { folder, stem, note } = await api.save(request, await this.studio.maskOf(result));
    const line = [`Saved as ${stem} in ${folder}`, note].filter(Boolean).join(". ");
    $("save-line").textContent = line;
    this.studio.tell(line);
    this.studio.say(line);
  }

  async zip() {
    const results = this.studio.strip.results();
    const blob = await this.studio.api.blob("api/session.zip", { body: { results } });
    this.#store(blob, "semsynth-session.zip");
  }

  async python() {
    const { result } = this.studio.current();
    $("python-text").value = await this.studio.api.text("api/python", { body: { result } });
    $("python-note").textContent = "";
    $("python-dialog").showModal();
    await this.#copy();
  }

  async #copy() {
    const text = $("python-text");
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
      $("python-note").textContent = "Copied.";
    } catch {
      $("python-note").textContent = "The browser does not let the page copy: press Ctrl+C."; // in a frame, say
    }
  }
}
