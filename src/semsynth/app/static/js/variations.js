// The panel "Variations": a grid of seeds, and the neighbours of one.

import { $, make } from "./dom.js";
import { anySeed } from "./settings.js";

const AT_ONCE = 2; // the queue has room for others, too

export class Variations {
  constructor(studio) {
    this.studio = studio;
    this.round = 0;
    $("grid-new").addEventListener("click", () => this.fill(() => ({ seed: anySeed(), variation: undefined })));
    $("grid-near").addEventListener("click", () => this.near());
    const output = () => {
      document.querySelector("output[for=amount]").textContent = `${$("amount").value}%`;
    };
    $("amount").addEventListener("input", output);
    $("amount").addEventListener("change", () => studio.settings.set({ amount: Number($("amount").value) }));
    $("grid-count").addEventListener("change", () => studio.settings.set({ gridCount: Number($("grid-count").value) }));
    studio.settings.addEventListener("change", () => {
      $("amount").value = studio.settings.amount;
      $("grid-count").value = studio.settings.gridCount;
      output();
    });
    output();
  }

  near() {
    const amount = this.studio.settings.amount / 100;
    this.fill(() => ({ variation: { seed: anySeed(), amount } }));
  }

  /** One image for each cell; a new grid takes the place of an unfinished one. */
  async fill(changes) {
    const { generator, settings } = this.studio;
    const round = ++this.round;
    const count = settings.gridCount;
    for (let i = 0; i < 16; i++) generator.stop(`grid-${i}`);
    const cells = Array.from({ length: count }, (_, i) => this.#cell(i));
    $("grid").replaceChildren(...cells.map(({ item }) => item));
    let next = 0;
    let made = 0;
    const work = async () => {
      while (next < count && round === this.round) {
        const i = next++;
        const result = await generator.ask(`grid-${i}`, "live", changes());
        if (round !== this.round) return;
        if (result) made++;
        cells[i].show(result);
        $("grid-note").textContent = `${made} of ${count} images. Pick one to go on with it.`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  }

  #cell(i) {
    const picture = make("canvas", { width: 1, height: 1 });
    const label = make("span", { textContent: "…" });
    const button = make("button", { disabled: true, aria: { label: `Variation ${i + 1}, not made yet` } }, picture, label);
    const show = (result) => {
      if (!result) {
        label.textContent = "not made";
        button.setAttribute("aria-label", `Variation ${i + 1}, not made`);
        return;
      }
      const { seed, variation } = result.request;
      picture.width = result.bitmap.width;
      picture.height = result.bitmap.height;
      picture.getContext("2d").drawImage(result.bitmap, 0, 0);
      label.textContent = variation ? `to ${variation.seed}` : seed;
      button.disabled = false;
      button.setAttribute("aria-label", `Variation ${i + 1}: seed ${seed}${variation ? ` towards ${variation.seed}` : ""}`);
      button.addEventListener("click", () => {
        this.studio.adopt(result);
        for (const other of $("grid").querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
      });
    };
    return { item: make("li", {}, button), show };
  }
}
