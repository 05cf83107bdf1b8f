// What ids mean for a model, and the colours that they are shown in. No DOM.

const UNKNOWN = [255, 0, 255];
const ALPHA = 0xff000000;

/** Evenly different colours for labels that have none. */
export function madeColor(index) {
  const hue = (index * 137.508) % 360;
  const level = [0.62, 0.46, 0.78][index % 3];
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (level - 0.6 * Math.min(level, 1 - level) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export class LabelTable {
  /** labels: [{id, name, color: [r, g, b] or null, ignored}]; `unlabelled`: the id of no label. */
  constructor(labels, unlabelled = null) {
    this.labels = labels.map((label, i) => ({ ...label, color: label.color ?? madeColor(i) }));
    this.byId = new Map(this.labels.map((label) => [label.id, label]));
    this.usable = this.labels.filter((label) => !label.ignored);
    this.unlabelled = unlabelled ?? this.labels.find((label) => label.ignored)?.id ?? 255;
    const [r, g, b] = UNKNOWN;
    this.table = new Uint32Array(65536).fill(ALPHA | (b << 16) | (g << 8) | r);
    for (const { id, color, ignored } of this.labels) {
      this.table[id] = ignored ? 0 : (ALPHA | (color[2] << 16) | (color[1] << 8) | color[0]) >>> 0;
    }
    this.table[this.unlabelled] = 0; // transparent: the pattern below shows
  }

  /** What ids mean, as a text: the same for models whose masks are the same. */
  get key() {
    return JSON.stringify([this.unlabelled, ...this.labels.map(({ id, name, ignored }) => [id, name, Boolean(ignored)])]);
  }

  /**
   * A map of these labels in those of another table, by name: {translated; shared: whether any
   * class of it is there; unknown: names of those that are not, whose pixels have no label now}.
   */
  translated(map, other) {
    const names = new Map(other.usable.map(({ id, name }) => [name, id]));
    const table = new Uint16Array(65536).fill(other.unlabelled);
    const unknown = [];
    let shared = false;
    for (const id of map.counts().keys()) {
      if (this.isUnlabelled(id)) continue;
      const same = names.get(this.name(id));
      if (same === undefined) unknown.push(this.name(id));
      else [table[id], shared] = [same, true];
    }
    const translated = map.copy();
    map.ids.forEach((id, i) => {
      translated.ids[i] = table[id];
      if (table[id] === other.unlabelled) translated.numbers[i] = 0;
    });
    return { translated, shared, unknown };
  }

  knows(id) {
    return id === this.unlabelled || this.byId.has(id);
  }

  isUnlabelled(id) {
    return id === this.unlabelled || Boolean(this.byId.get(id)?.ignored);
  }

  /** Whether a class comes as objects: where it is said of none, any may. */
  isThing(id) {
    const some = this.usable.some(({ thing }) => thing);
    return this.byId.has(id) && !this.isUnlabelled(id) && (!some || this.byId.get(id).thing);
  }

  name(id) {
    if (this.byId.has(id)) return this.byId.get(id).name;
    return id === this.unlabelled ? "unlabelled" : `id ${id}, unknown to the model`;
  }

  color(id) {
    return this.byId.get(id)?.color ?? (id === this.unlabelled ? [128, 128, 128] : UNKNOWN);
  }

  css(id) {
    return `rgb(${this.color(id).join(" ")})`;
  }

  /** Which labels match a search: by name or id, all where it is empty. */
  search(text) {
    const wanted = text.trim().toLowerCase();
    return this.usable.filter(
      (label) => label.name.toLowerCase().includes(wanted) || String(label.id) === wanted);
  }
}
