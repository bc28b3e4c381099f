// The picture: a canvas of as many pixels as the image has, put and enlarged by the page.

const WHEEL = 60; // of a wheel's delta, for one image; touch pads send many small ones
const SWIPE = 14; // pixels of a finger, for one image

/** Draws bitmaps, and tells what mouse, wheel and fingers want. */
export class Stage {
  #zoom = null; // null: fitted
  #shift = [0, 0];
  #size = null; // [width, height] of the picture in pixels of its own
  #tall = 1;
  #rolled = 0;
  #pointers = new Map();
  #drag = null;

  /** wishes: step(count), window(right, up, isFirst), zoomed(). */
  constructor(wishes) {
    this.wishes = wishes;
    this.element = document.getElementById("stage");
    this.canvas = document.getElementById("picture");
    this.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    for (const name of ["down", "move", "up", "cancel"])
      this.element.addEventListener(`pointer${name}`, (event) => this[name](event));
    this.element.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.place()).observe(this.element);
  }

  /** Shows a bitmap. width, height: of the image, which may have been drawn smaller. tall: of its pixels. */
  draw(bitmap, width, height, tall) {
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height)
      [this.canvas.width, this.canvas.height] = [bitmap.width, bitmap.height];
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.#size = [width, height];
    this.#tall = tall ?? 1;
    this.place();
  }

  /** Shows nothing. */
  clear() {
    this.#size = null;
    [this.canvas.width, this.canvas.height] = [1, 1];
  }

  get scale() {
    return this.#zoom ?? this.#fitting();
  }

  get isFitted() {
    return this.#zoom === null;
  }

  /** scale: pixels of the screen for one of the picture; null fits it. at: what stays where it is. */
  zoom(scale, at = [this.element.clientWidth / 2, this.element.clientHeight / 2]) {
    if (!this.#size) return;
    const before = this.scale;
    const left = this.#left(before);
    this.#zoom = scale === null ? null : Math.min(Math.max(scale, 0.05), 32);
    if (scale === null) this.#shift = [0, 0];
    else {
      const after = this.#left(this.scale, [0, 0]);
      this.#shift = [0, 1].map((i) => at[i] - (at[i] - left[i]) * (this.scale / before) - after[i]);
    }
    this.place();
    this.wishes.zoomed();
  }

  place() {
    if (!this.#size) return;
    const scale = this.scale;
    const [left, top] = this.#left(scale);
    const across = (this.#size[0] / this.canvas.width) * scale;
    const down = (this.#size[1] / this.canvas.height) * scale * this.#tall;
    this.canvas.style.transform = `translate(${left}px, ${top}px) scale(${across}, ${down})`;
    this.canvas.classList.toggle("sharp", scale >= 3);
  }

  #fitting() {
    if (!this.#size) return 1;
    return Math.min(
      this.element.clientWidth / this.#size[0],
      this.element.clientHeight / (this.#size[1] * this.#tall),
      16,
    );
  }

  #left(scale, shift = this.#shift) {
    return [
      (this.element.clientWidth - this.#size[0] * scale) / 2 + shift[0],
      (this.element.clientHeight - this.#size[1] * this.#tall * scale) / 2 + shift[1],
    ];
  }

  #at(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #isPicture(event) {
    return !event.target.closest("#document, #message") && this.#size;
  }

  #wheel(event) {
    if (!this.#isPicture(event) && event.target.closest("#document")) return;
    event.preventDefault();
    if (event.ctrlKey) {
      this.zoom(this.scale * Math.exp(-event.deltaY / 300), this.#at(event));
      return;
    }
    const delta = event.deltaMode === 1 ? event.deltaY * 40 : event.deltaY;
    if (Math.sign(delta) !== Math.sign(this.#rolled)) this.#rolled = 0;
    this.#rolled += delta;
    const steps = Math.trunc(this.#rolled / WHEEL) || (Math.abs(delta) >= WHEEL / 2 ? Math.sign(delta) : 0);
    if (!steps) return;
    this.#rolled = 0;
    this.wishes.step(Math.max(-3, Math.min(3, steps)));
  }

  down(event) {
    if (!this.#isPicture(event)) return;
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#at(event));
    const moves = event.button !== 0 || event.shiftKey;
    const kind = event.pointerType === "touch" ? (this.isFitted ? "swipe" : "move") : moves ? "move" : "window";
    this.#drag = { kind, from: this.#at(event), shift: [...this.#shift], done: 0, isFirst: true, apart: null };
  }

  move(event) {
    if (!this.#drag || !this.#pointers.has(event.pointerId)) return;
    this.#pointers.set(event.pointerId, this.#at(event));
    if (this.#pointers.size === 2) {
      this.#pinch();
      return;
    }
    const [right, down] = this.#at(event).map((value, i) => value - this.#drag.from[i]);
    if (this.#drag.kind === "window") {
      if (this.#drag.isFirst && Math.abs(right) + Math.abs(down) < 3) return;
      this.wishes.window(right, -down, this.#drag.isFirst);
      this.#drag.isFirst = false;
    } else if (this.#drag.kind === "move") {
      this.#shift = [this.#drag.shift[0] + right, this.#drag.shift[1] + down];
      this.#zoom ??= this.scale;
      this.place();
    } else {
      const steps = Math.trunc(-down / SWIPE) - this.#drag.done;
      this.#drag.done += steps;
      if (steps) this.wishes.step(steps);
    }
  }

  #pinch() {
    const [one, other] = [...this.#pointers.values()];
    const apart = Math.hypot(one[0] - other[0], one[1] - other[1]);
    this.#drag.kind = "move";
    if (this.#drag.apart) this.zoom((this.scale * apart) / this.#drag.apart, [0, 1].map((i) => (one[i] + other[i]) / 2));
    this.#drag.apart = apart;
  }

  up(event) {
    this.#pointers.delete(event.pointerId);
    if (!this.#pointers.size) this.#drag = null;
  }

  cancel(event) {
    this.up(event);
  }
}

/** The letters at the edges of a picture (PS3.3 C.7.6.1.1.1): left, right, top, bottom. directions: six cosines. */
export function letters(directions) {
  if (directions?.length !== 6) return ["", "", "", ""];
  const named = (vector) =>
    vector
      .map((value, i) => [Math.abs(value), (value > 0 ? "LPH" : "RAF")[i]])
      .filter(([size]) => size > 0.35)
      .sort((one, other) => other[0] - one[0])
      .map(([, letter]) => letter)
      .join("");
  const row = directions.slice(0, 3);
  const column = directions.slice(3);
  const opposite = (vector) => vector.map((value) => -value);
  return [named(opposite(row)), named(row), named(opposite(column)), named(column)];
}
