// Windows: the list to choose from, and what is asked of the server for each image.

const ROUND = 100;

/** Which grey values are shown. current: null for as the file says, or {name, centre, width}. */
export class Windows {
  #choices = [];
  current = null;
  start = null; // {centre, width} that a drag begins with while the file's own is shown

  constructor(changed) {
    this.list = document.getElementById("preset");
    this.list.addEventListener("change", () => {
      this.choose(Number(this.list.value));
      changed();
    });
  }

  /** presets: of the modality. own: windows of the file, as [centre, width], with names. full: [low, high] or null. */
  offer(presets, own, names, full) {
    const further = own.slice(1).map(([centre, width], i) => ({ name: names[i + 1] || `Window ${i + 2} of the file`, centre, width }));
    const range = full ? [{ name: "Full range", ...ofRange(full) }] : [];
    this.#choices = [{ name: names[0] ? `As stored: ${names[0]}` : "As stored" }, ...further, ...presets, ...range];
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
  set(centre, width) {
    const rounded = (value) => Math.round(value * ROUND) / ROUND;
    this.current = { name: "Own", centre: rounded(centre), width: Math.max(rounded(width), 1) };
    this.#fill();
  }

  /** The part of an address that asks for it. */
  get query() {
    return this.current ? `&window=${this.current.centre},${this.current.width}` : "";
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

/** The linear window from one value to another (PS3.3 C.11.2.1.2). */
export const ofRange = ([low, high]) => ({ centre: (low + high + 1) / 2, width: Math.max(high - low + 1, 1) });

const plain = (value) => Number(value.toFixed(Math.abs(value) < 10 ? 2 : 0)).toLocaleString("en").replace("-", "−");
