// Small helpers for elements.

export const $ = (id) => document.getElementById(id);

/** An element with properties (`data`, `on` and `aria` are tables) and children. */
export function make(tag, { data = {}, on = {}, aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  for (const [name, action] of Object.entries(on)) element.addEventListener(name, action);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon of the page's sprite. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Put one option for each [value, text] into a select, and keep what was chosen. */
export function options(select, pairs, chosen = select.value) {
  select.replaceChildren(...pairs.map(([value, textContent]) => make("option", { value, textContent })));
  if (pairs.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

/** Disable a button until its action is done; errors are one line in the page. */
export function action(button, studio, act) {
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    try {
      await act();
    } catch (error) {
      studio.complain(error);
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
}

export const percent = (share) =>
  share === 0 ? "0%" : share < 0.001 ? "<0.1%" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

/** Let the user store a file. */
export function download(href, name = "") {
  const link = make("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}
