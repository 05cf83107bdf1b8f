// The images of this session, newest first: each with its mask and settings, to go back to.

import { $, make } from "./dom.js";
import { IdMap } from "./idmap.js";

const KEPT = 40;

/** A result as it is stored: its mask in runs, its image as the PNG that came. */
export const stored = ({ blob, result, request, seconds, note, quality, map }) => ({
  blob, result, request, seconds, note, quality, ...map.packed(),
});

/** The result of what was stored. */
export async function restored(entry) {
  return { ...entry, map: IdMap.unpacked(entry), bitmap: await createImageBitmap(entry.blob) };
}

export class Strip {
  constructor(studio) {
    this.studio = studio;
    this.entries = [];
  }

  results() {
    const ids = this.entries.map(({ result }) => result);
    const current = this.studio.result?.result;
    return current && !ids.includes(current) ? [current, ...ids] : ids;
  }

  /** Remember a result; the oldest are forgotten. */
  add(result) {
    if (this.entries.some((entry) => entry.result === result.result)) return;
    this.entries.unshift(stored(result));
    this.entries.length = Math.min(this.entries.length, KEPT);
    $("strip").prepend(this.#item(this.entries[0], result.bitmap));
    while ($("strip").children.length > KEPT) $("strip").lastElementChild.remove();
    $("strip-note").hidden = true;
    this.studio.session.save("strip", this.entries);
  }

  async load(entries) {
    this.entries = entries ?? [];
    for (const entry of this.entries) {
      const { bitmap } = await restored(entry);
      $("strip").append(this.#item(entry, bitmap));
    }
    $("strip-note").hidden = this.entries.length > 0;
  }

  #item(entry, bitmap) {
    const canvas = make("canvas", { height: 96, width: Math.max(1, Math.round((96 * bitmap.width) / bitmap.height)) });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const text = `Seed ${entry.request.seed}, ${entry.request.model}`;
    const button = make("button", { title: `${text}: back to this image and its mask`, aria: { label: `Back to: ${text}` } }, canvas);
    button.addEventListener("click", async () => this.studio.adopt(await restored(entry)));
    return make("li", {}, button);
  }
}
