// The panel "Image": seed, live, sampler, what stays, the source image; and the choice of models.

import { $, options, percent } from "./dom.js";
import { anySeed } from "./settings.js";

const counted = (n) => (n === 1 ? "1 evaluation" : `${n} evaluations`);

export class ImagePanel {
  constructor(studio) {
    this.studio = studio;
    const { settings } = studio;
    this.#numbers();
    for (const id of ["live", "refine"]) {
      $(id).addEventListener("change", () => settings.set({ [id]: $(id).checked }));
    }
    $("use-source").addEventListener("change", () => settings.set({ useSource: $("use-source").checked }));
    for (const [id, key] of [["keep-strength", "keepStrength"], ["strength", "strength"]]) {
      $(id).addEventListener("input", () => this.#output(id, Number($(id).value)));
      $(id).addEventListener("change", () => settings.set({ [key]: Number($(id).value) }));
    }
    $("new-seed").addEventListener("click", () => settings.set({ seed: anySeed(), towards: null }));
    $("towards").querySelector("button").addEventListener("click", () => settings.set({ towards: null }));
    $("scheduler").addEventListener("change", () => settings.set({ scheduler: $("scheduler").value }));
    $("model").addEventListener("change", () => settings.set({ model: $("model").value }));
    $("compare").addEventListener("change", () => settings.set({ compare: $("compare").value }));
    $("keep").addEventListener("click", () => studio.keep(!settings.keep));
    $("upload").addEventListener("change", () => studio.masks.upload($("upload").files[0]));
    settings.addEventListener("change", () => this.show());
    studio.document.addEventListener("commit", () => {
      this.#kept();
      this.#refines();
    });
  }

  #numbers() {
    const { settings } = this.studio;
    for (const id of ["seed", "steps", "guidance"]) {
      $(id).addEventListener("change", () => {
        const field = $(id);
        const possible = id === "steps" ? this.studio.model?.steps_choices : null;
        const wrong = possible && !possible.includes(Number(field.value));
        if (!field.checkValidity() || field.value === "" || wrong) {
          const why = wrong ? `this model takes ${possible.join(", ")}` : field.validationMessage || "needs a number";
          this.studio.complain(new Error(`${field.labels[0].innerText}: ${why}`));
          field.value = settings[id];
          return;
        }
        settings.set({ [id]: Number(field.value), ...(id === "seed" && { towards: null }) });
      });
    }
  }

  #output(id, value) {
    document.querySelector(`output[for=${id}]`).textContent = `${value}%`;
  }

  /** The models of the server are known. */
  list() {
    const { models, settings } = this.studio;
    const names = [...models.values()].map(({ id, name }) => [id, name]);
    options($("model"), names, settings.model);
    $("model").title = models.get(settings.model)?.name ?? "";
    options($("compare"), [["", names.length > 1 ? "no other model" : "only one model is open"], ...names], settings.compare);
    $("compare").disabled = names.length < 2;
    this.comparable();
    $("compare").title = names.length < 2 ? "Start with --model twice to compare two" : "";
    $("upload-field").hidden = !this.studio.state.upload;
  }

  /** Of models that have no class in common there is nothing to compare. */
  comparable() {
    const { models, model, masks, settings } = this.studio;
    for (const option of $("compare").options) {
      const other = models.get(option.value);
      if (!other || !model) continue;
      option.disabled = !masks.share(model, other);
      option.textContent = option.disabled ? `${other.name}: no class in common` : other.name;
      if (option.disabled && settings.compare === other.id) settings.set({ compare: "" });
    }
    $("compare").value = settings.compare;
  }

  /** Another model: what of the sampler can be chosen, or why it cannot. */
  reset() {
    const { model, settings } = this.studio;
    this.comparable();
    const only = model.steps_choices?.length === 1;
    const reasons = {
      steps: only ? `This model generates in ${counted(model.steps_choices[0])} of the network.` : null,
      guidance: model.why_no_guidance,
      scheduler: model.why_no_scheduler,
    };
    for (const [id, reason] of Object.entries(reasons)) {
      $(id).disabled = Boolean(reason);
      $(id).title = reason ?? "";
    }
    const shown = [...new Set([...Object.values(reasons), model.why_not_refined].filter(Boolean))];
    $("sampler-reason").textContent = shown.map((line) => (/[.!?]$/.test(line) ? line : `${line}.`)).join(" ");
    $("sampler-reason").hidden = !shown.length;
    $("steps").max = model.max_steps ?? 1000;
    $("guidance").placeholder = reasons.guidance ? "none" : "";
    const own = reasons.scheduler ? "none" : `the model's own${model.scheduler ? `: ${model.scheduler}` : ""}`;
    options($("scheduler"), [["", own], ...(model.schedulers ?? []).map((name) => [name, name])], settings.scheduler);
    const possible = model.steps_choices ?? [];
    const steps = settings.steps ?? model.steps;
    settings.set({
      steps: possible.length && !possible.includes(steps) ? model.steps : steps,
      guidance: reasons.guidance ? null : (settings.guidance ?? model.guidance),
      scheduler: $("scheduler").value,
    });
    this.show();
  }

  show() {
    const { settings } = this.studio;
    $("seed").value = settings.seed;
    $("steps").value = settings.steps ?? "";
    $("guidance").value = settings.guidance ?? "";
    for (const id of ["live", "refine"]) $(id).checked = settings[id];
    $("towards").hidden = !settings.towards;
    if (settings.towards) {
      $("towards").firstElementChild.textContent =
        `${Math.round(100 * settings.towards.amount)}% towards seed ${settings.towards.seed}`;
    }
    $("strength").value = settings.strength;
    $("keep-strength").value = settings.keepStrength;
    this.#output("strength", settings.strength);
    this.#output("keep-strength", settings.keepStrength);
    this.#kept();
    this.#source();
    this.#refines();
  }

  /** Whether there is something to refine: by the model's sampler, or objects that are only pasted. */
  #refines() {
    const { model, settings, document: map } = this.studio;
    const objects = settings.objectPixels && map.placed.size && map.map.numbers.some((n) => map.placed.has(n));
    $("refine-field").hidden = !model?.refines && !objects;
  }

  #kept() {
    const { settings, document: map } = this.studio;
    const kept = Boolean(settings.keep);
    $("keep").setAttribute("aria-pressed", kept);
    $("keep-strength-field").hidden = !kept;
    $("keep-note").textContent = kept
      ? `${percent(map.touchedShare())} of the pixels are regenerated; all others stay exactly.`
      : "Only what you draw from then on is regenerated; all other pixels stay exactly.";
  }

  #source() {
    const { settings, api } = this.studio;
    const { source } = settings;
    $("source-field").disabled = !source;
    $("underlay-field").hidden = !source;
    $("use-source").checked = settings.useSource && Boolean(source);
    $("source-name").textContent = source ? source.name : "Choose one in Data first.";
    $("source-image").hidden = !source;
    if (source) {
      const address = api.url(source.path, {}, true);
      if ($("source-image").src !== address) $("source-image").src = address;
    }
  }
}
