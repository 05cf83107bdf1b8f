// Where a request stands: its place in the queue, then its steps. Shown when it takes a while.

import { $ } from "./dom.js";

const AFTER = 400; // milliseconds
const EVERY = 300;

export class Progress {
  constructor(studio) {
    this.studio = studio;
    studio.generator.addEventListener("busy", () => this.#watch());
    $("stop").addEventListener("click", () => {
      for (const lane of [...studio.generator.lanes.keys()]) studio.generator.stop(lane);
      studio.variations.round++;
      studio.tell("Stopped.");
    });
  }

  /** The lane that is shown: the image's, else any. */
  get lane() {
    const { lanes } = this.studio.generator;
    return lanes.has("image") ? "image" : lanes.keys().next().value;
  }

  #watch() {
    document.body.dataset.busy = String(this.studio.generator.lanes.size > 0);
    if (!this.lane) $("progress").hidden = true;
    else this.timer ??= setTimeout(() => this.#look(), AFTER);
  }

  async #look() {
    this.timer = undefined;
    const { generator } = this.studio;
    const { lane } = this;
    const own = generator.lanes.get(lane);
    if (!own) return;
    if (performance.now() - own.started >= AFTER) {
      try {
        this.#show(lane, await generator.progress(lane));
      } catch {
        // the request itself tells what is wrong
      }
    }
    if (generator.lanes.size) this.timer ??= setTimeout(() => this.#look(), EVERY);
  }

  #show(lane, where) {
    if (!this.studio.generator.lanes.has(lane)) return;
    const bar = $("progress").querySelector("progress");
    const text = $("progress").querySelector("span");
    $("progress").hidden = false;
    if (where?.position > 0) text.textContent = `Waiting: place ${where.position} in the queue`;
    else if (where?.steps > 1) text.textContent = `Step ${where.step} of ${where.steps}`;
    else text.textContent = "Generating";
    if (where?.steps > 1 && !where.position) bar.value = where.step / where.steps;
    else bar.removeAttribute("value");
  }
}
