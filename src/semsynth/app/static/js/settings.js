// What is chosen in the page. "change" tells which keys changed. No DOM.

export const DEFAULTS = {
  model: null,
  compare: "",
  classId: null,
  tool: "brush",
  size: 12,
  opacity: 100,
  underlay: true,
  show: "both",
  seed: 0,
  towards: null, // {seed, amount}: the noise lies between the seed's and this one's
  live: true,
  refine: true,
  steps: null,
  guidance: null,
  scheduler: "",
  keep: null, // the result whose other pixels stay
  keepStrength: 100,
  source: null, // {id, name, path}: an image of the data, or the user's own
  maskSource: null, // the item that the mask was begun from
  useSource: false,
  strength: 50,
  objectPixels: true, // objects of the shelf bring their own pixels
  objectStrength: 15,
  gridCount: 9,
  amount: 30,
  overlay: "disagreement",
};

// What makes another image of the same mask.
export const OF_THE_IMAGE = new Set([
  "model", "seed", "towards", "steps", "guidance", "scheduler", "keepStrength", "useSource", "strength",
  "objectPixels", "objectStrength",
]);

export class Settings extends EventTarget {
  constructor() {
    super();
    Object.assign(this, DEFAULTS);
  }

  set(values) {
    const changed = new Set(Object.keys(values).filter((key) => key in DEFAULTS && this[key] !== values[key]));
    for (const key of changed) this[key] = values[key];
    if (changed.size) this.dispatchEvent(new CustomEvent("change", { detail: changed }));
  }

  values() {
    return Object.fromEntries(Object.keys(DEFAULTS).map((key) => [key, this[key]]));
  }
}

/** A new seed, short enough to be read out: 0 to 999,999. */
export const anySeed = () => Math.floor(Math.random() * 1e6);
