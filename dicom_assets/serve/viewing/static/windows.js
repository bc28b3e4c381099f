// Windows: the list to choose from, and what is asked of the server for each image.

/**
 * Which grey values are shown. current: null for as the file says, or {name, centre, width, exact}.
 * exact: by the function LINEAR_EXACT (PS3.3 C.11.2.1.3.2), which knows widths below 1; without it LINEAR.
 */
export class Windows {
  #choices = [];
  current = null;
  start = null; // {centre, width} that a drag begins with while the file's own is shown

  /** changed: called when one is chosen from the list, with whether that was by the mouse. */
  constructor(changed) {
    this.list = document.getElementById("preset");
    let isByMouse = false;
    this.list.addEventListener("pointerdown", () => (isByMouse = true));
    this.list.addEventListener("keydown", () => (isByMouse = false));
    this.list.addEventListener("change", () => {
      this.choose(Number(this.list.value));
      changed(isByMouse);
    });
  }

  /** presets: of the modality. own: windows of the file, as [centre, width], with names. full: [low, high] or null. */
  offer(presets, own, names, full) {
    const further = own.slice(1).map(([centre, width], i) => ({ name: names[i + 1] || `Window ${i + 2} of the file`, centre, width }));
    const range = full ? [{ name: "Full range", ...ofRange(full) }] : [];
    this.#choices = [{ name: names[0] ? `As stored: ${names[0]}` : "As stored" }, ...further, ...presets, ...range];
    const { name } = this.current ?? {};
    if (name !== "Own") this.current = this.#choices.find((one) => one.width !== undefined && one.name === name) ?? null;
    this.#fill();
  }

  /** The number of a choice; 0 is as stored. */
  choose(number) {
    const choice = this.#choices[number];
    if (!choice) return false;
    this.current = choice.width === undefined ? null : choice;
    this.#fill();
    return true;
  }

  /** The choice that shows everything from the darkest value to the lightest. */
  chooseFull() {
    this.choose(this.#choices.length - 1);
  }

  /** A window of one's own. */
  set(centre, width, exact) {
    const step = exact ? 10 ** Math.floor(Math.log10(Math.max(Math.abs(width), 1e-6)) - 2) : 0.01;
    const rounded = (value) => Number((Math.round(value / step) * step).toPrecision(9));
    this.current = { name: "Own", centre: rounded(centre), width: Math.max(rounded(width), exact ? step : 1), exact };
    this.#fill();
  }

  /** The part of an address that asks for it. */
  get query() {
    const { centre, width, exact } = this.current ?? {};
    return this.current ? `&window=${centre},${width}${exact ? ",linear-exact" : ""}` : "";
  }

  /** As people read it. own: the image's own windows. */
  text(own) {
    const shown = this.current ?? (own?.[0] ? { centre: own[0][0], width: own[0][1] } : this.start);
    const name = this.current ? this.current.name : "as stored";
    return shown ? `W ${plain(shown.width)}  L ${plain(shown.centre)}\n${name}` : name;
  }

  #fill() {
    const own = this.current?.name === "Own";
    const options = this.#choices.map((one, i) => new Option(i < 10 ? `${i}  ${one.name}` : one.name, i));
    if (own) options.push(new Option(`Own: ${plain(this.current.width)} / ${plain(this.current.centre)}`, "own"));
    this.list.replaceChildren(...options);
    const at = this.current ? this.#choices.indexOf(this.current) : 0;
    this.list.value = own ? "own" : String(Math.max(at, 0));
  }
}

/** The window from one value to another. */
export const ofRange = ([low, high]) => ({ centre: (low + high) / 2, width: high - low || 1, exact: true });

function plain(value) {
  const shown = Math.abs(value) < 10 ? Number(value.toPrecision(3)) : Math.round(value);
  return shown.toLocaleString("en", { maximumFractionDigits: 6 }).replace("-", "−");
}
