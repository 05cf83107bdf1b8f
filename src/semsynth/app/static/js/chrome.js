// Around the studio: tabs, dialogs, dark and light, the line of an error.

import { $, options } from "./dom.js";
import { IdMap } from "./idmap.js";
import { decodeIds } from "./png.js";

/** One line over the page; null takes it away. */
export function showError(line) {
  $("error").hidden = line === null;
  $("error").firstElementChild.textContent = line ?? "";
}

/** Dark or light as the system has it, until the user chooses. */
export function theme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => {
    try {
      return localStorage.getItem("semsynth theme");
    } catch {
      return null;
    }
  };
  root.dataset.theme = remembered() ?? "";
  $("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("semsynth theme", root.dataset.theme);
    } catch {
      // a frame without storage
    }
  });
}

/** Tabs by pointer and by arrow keys. */
export function tabs(opened) {
  const all = [...document.querySelectorAll("[role=tab]")];
  const select = (tab, focus) => {
    for (const other of all) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", chosen);
      other.tabIndex = chosen ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    opened(tab.id.replace("tab-", ""));
  };
  all.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab, false));
    tab.addEventListener("keydown", ({ key }) => {
      const next = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[key];
      if (next !== undefined) select(all[(next + all.length) % all.length], true);
    });
  });
}

export function dialogs(studio) {
  $("error").querySelector("button").addEventListener("click", () => showError(null));
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close("cancel"));
  }
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  $("new").addEventListener("click", () => {
    const [height, width] = studio.model?.size ?? [128, 128];
    const { usable, unlabelled } = studio.labels;
    $("new-width").value = width;
    $("new-height").value = height;
    options($("new-class"), [...usable.map(({ id, name }) => [id, name]), [unlabelled, "unlabelled"]], studio.settings.classId);
    $("open-mask").value = "";
    $("new-dialog").returnValue = "cancel";
    $("new-dialog").showModal();
  });
  $("new-dialog").addEventListener("close", async () => {
    if ($("new-dialog").returnValue !== "ok") return;
    const [file] = $("open-mask").files;
    try {
      if (file) {
        const { width, height, ids } = await decodeIds(new Uint8Array(await file.arrayBuffer()));
        studio.open(width, height, ids);
      } else {
        const [width, height] = [Number($("new-width").value), Number($("new-height").value)];
        studio.open(width, height, IdMap.filled(width, height, Number($("new-class").value)).ids);
      }
    } catch (error) {
      studio.complain(new Error(file ? `${file.name}: ${error.message}` : error.message));
    }
  });
}
