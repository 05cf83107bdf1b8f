// Pointer (mouse, pen, fingers) and keyboard lead to the tools. A pen's pressure is ignored.

export class Hands {
  constructor(studio) {
    this.studio = studio;
    this.pointers = new Map();
    this.hover = null; // the pixel under pointer or keyboard cursor
    this.space = false;
    this.keys = false; // whether the cursor is the keyboard's
    for (const pane of studio.view.panes) this.#listen(pane);
    this.#keyboard(studio.panes.mask.canvas);
  }

  get tool() {
    return this.studio.tools[this.studio.settings.tool].tool;
  }

  #listen(pane) {
    const { canvas } = pane;
    const on = (name, action) => canvas.addEventListener(name, action, { passive: false });
    on("pointerdown", (event) => this.#down(pane, event));
    on("pointermove", (event) => this.#move(pane, event));
    on("pointerup", (event) => this.#up(pane, event));
    on("pointercancel", (event) => this.#lost(event));
    on("pointerleave", () => this.#point(null));
    on("contextmenu", (event) => event.preventDefault());
    on("dblclick", (event) => event.preventDefault());
    on("wheel", (event) => this.#wheel(pane, event));
  }

  #point(pixel) {
    this.hover = pixel;
    this.studio.panes.mask.canvas.classList.toggle("by-keys", this.keys);
    this.studio.pointed(pixel);
  }

  #down(pane, event) {
    event.preventDefault();
    // Keys are the studio's from now on, no longer those of a field.
    if (pane.canvas.tabIndex >= 0) pane.canvas.focus({ preventScroll: true });
    else document.activeElement?.blur();
    this.#release();
    this.keys = false;
    pane.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) return this.#pinch();
    if (this.pointers.size > 2) return;
    const pixel = this.studio.view.pixel(pane, event.clientX, event.clientY);
    if (event.button === 1 || this.space || this.studio.settings.tool === "hand") this.action = "pan";
    else if (event.button === 2) this.studio.tools.eyedropper.tool.down(...pixel);
    else if (event.button === 0) {
      this.action = "draw";
      this.last = pixel;
      this.tool.down?.(...pixel);
    }
    this.#point(pixel);
  }

  /** A second finger: what the first one began is not a stroke. */
  #pinch() {
    if (this.action === "draw") this.tool.cancel?.();
    this.action = "pinch";
  }

  #move(pane, event) {
    const { view } = this.studio;
    const last = this.pointers.get(event.pointerId);
    if (!last) return this.#point(view.pixel(pane, event.clientX, event.clientY));
    const now = [event.clientX, event.clientY];
    if (this.action === "pan") view.pan(now[0] - last[0], now[1] - last[1]);
    else if (this.action === "pinch") this.#pinched(pane, event.pointerId, last, now);
    else if (this.action === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const { clientX, clientY } of events.length ? events : [event]) {
        const pixel = view.pixel(pane, clientX, clientY);
        if (pixel[0] === this.last[0] && pixel[1] === this.last[1]) continue;
        this.last = pixel;
        this.tool.move?.(...pixel);
      }
      this.#point(this.last);
    }
    this.pointers.set(event.pointerId, now);
  }

  #pinched(pane, id, last, now) {
    const other = [...this.pointers].find(([key]) => key !== id)?.[1];
    if (!other) return;
    const box = pane.canvas.getBoundingClientRect();
    const before = Math.hypot(last[0] - other[0], last[1] - other[1]);
    const after = Math.hypot(now[0] - other[0], now[1] - other[1]);
    this.studio.view.pan((now[0] - last[0]) / 2, (now[1] - last[1]) / 2);
    const middle = [(now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top];
    if (before > 0 && after > 0) this.studio.view.zoom(after / before, pane, ...middle);
  }

  #up(pane, event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.action === "draw") {
      this.studio.released = event.timeStamp;
      this.tool.up?.(...this.studio.view.pixel(pane, event.clientX, event.clientY));
      this.studio.released = null;
    }
    if (!this.pointers.size) this.action = null;
    if (event.pointerType === "touch") this.#point(null);
  }

  #lost(event) {
    this.pointers.delete(event.pointerId);
    if (this.action === "draw") this.tool.cancel?.();
    if (!this.pointers.size) this.action = null;
  }

  #wheel(pane, event) {
    event.preventDefault();
    const box = pane.canvas.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 30 : 1;
    if (event.shiftKey) return this.studio.view.pan(-(event.deltaX || event.deltaY) * lines, 0);
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015));
    this.studio.view.zoom(factor, pane, event.clientX - box.left, event.clientY - box.top);
  }

  // ---- the keyboard's cursor

  #keyboard(canvas) {
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 10 : 1;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key in moves) this.#step(...moves[event.key]);
      else if (event.key === " " && this.keys) this.#press(event.repeat);
      else if (event.key === "Enter" && this.tool.busy) this.tool.finish();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.#cursor());
    canvas.addEventListener("blur", () => {
      this.#release();
      this.keys = false;
      this.#point(null);
    });
  }

  #cursor() {
    const { document, view } = this.studio;
    if (!this.keys) {
      const inside = this.hover ?? [Math.floor(view.x), Math.floor(view.y)];
      this.at = [Math.min(inside[0], document.width - 1), Math.min(inside[1], document.height - 1)];
      this.keys = true;
    }
    this.#point(this.at);
  }

  #step(dx, dy) {
    const { document } = this.studio;
    this.#cursor();
    const [x, y] = this.at;
    this.at = [
      Math.max(0, Math.min(document.width - 1, x + dx)),
      Math.max(0, Math.min(document.height - 1, y + dy)),
    ];
    if (this.pressed) this.tool.move?.(...this.at);
    this.#point(this.at);
    this.studio.say(this.studio.describe(this.at));
  }

  /** Space: press; and once more: release. Tools without a stroke act at once. */
  #press(repeat) {
    if (repeat) return;
    if (this.pressed) return this.#release(true);
    const strokes = Boolean(this.tool.up);
    this.tool.down?.(...this.at);
    this.pressed = strokes;
    const name = this.studio.tools[this.studio.settings.tool].name;
    this.studio.say(strokes ? `${name} down. ${this.studio.describe(this.at)}` : this.studio.describe(this.at));
    this.#point(this.at);
  }

  #release(spoken = false) {
    if (!this.pressed) return;
    this.pressed = false;
    this.studio.released = performance.now();
    this.tool.up(...this.at);
    this.studio.released = null;
    if (spoken) this.studio.say("Released");
  }

  // ---- an object that is dragged from the shelf

  #under(clientX, clientY) {
    return this.studio.view.panes.find(({ canvas }) => {
      const box = canvas.getBoundingClientRect();
      const inside = clientX >= box.left && clientX < box.right && clientY >= box.top && clientY < box.bottom;
      return inside && box.width;
    });
  }

  carry(clientX, clientY) {
    const pane = this.#under(clientX, clientY);
    this.#point(pane ? this.studio.view.pixel(pane, clientX, clientY) : null);
  }

  drop(clientX, clientY) {
    const pane = this.#under(clientX, clientY);
    if (pane) this.tool.down(...this.studio.view.pixel(pane, clientX, clientY));
    this.#point(null);
  }

  /** Escape: nothing of what was begun stays. */
  escape() {
    this.tool.cancel?.();
    this.pressed = false;
    if (this.action === "draw") this.action = null;
    if (this.studio.stamp) this.studio.take(null);
  }

  /** Before the tool changes, what it began is finished or forgotten. */
  putDown(tool) {
    if (this.pressed) this.#release();
    else tool?.cancel?.();
  }
}
