// The header beside the picture: its lines, searched.

import { asked } from "./frames.js";

const SHOWN = 1500;
const WAIT_MS = 200; // whoever scrolls does not read

/** The panel. */
export class Attributes {
  #lines = [];
  #isWhole = true;
  #timer = 0;
  #control = null;
  #address = "";

  /** arrived: called with the lines of a header that has come. */
  constructor(arrived) {
    this.body = document.querySelector("#lines tbody");
    this.search = document.getElementById("search");
    this.found = document.getElementById("found");
    this.arrived = arrived;
    this.search.addEventListener("input", () => this.#show());
  }

  /** Shows the header at an address, soon. */
  want(address) {
    if (address === this.#address) return;
    this.#address = address;
    clearTimeout(this.#timer);
    this.#control?.abort();
    this.#timer = setTimeout(() => this.#fetch(address), this.#lines.length ? WAIT_MS : 0);
  }

  async #fetch(address) {
    this.#control = new AbortController();
    const { signal } = this.#control;
    try {
      const answer = await asked(address, signal);
      if (signal.aborted) return;
      [this.#lines, this.#isWhole] = [answer.lines, answer.whole];
      this.#show();
      this.arrived(this.#lines);
    } catch (error) {
      if (signal.aborted) return;
      this.body.replaceChildren();
      this.found.textContent = error.message;
    }
  }

  #show() {
    const key = this.search.value.trim().toLowerCase();
    const hits = key ? this.#lines.filter((line) => matches(line, key)) : this.#lines;
    this.body.replaceChildren(...hits.slice(0, SHOWN).map((line) => row(line, key)));
    const more = hits.length > SHOWN ? `, the first ${SHOWN.toLocaleString("en")} shown` : "";
    const cut = this.#isWhole ? "" : "; the header goes on, DICOMweb has all of it";
    const what = key ? `${hits.length} of ${this.#lines.length} attributes` : `${this.#lines.length} attributes`;
    this.found.textContent = what + more + cut;
  }
}

const squeezed = (text) => text.toLowerCase().replace(/[\s(),']/g, "");

function matches([, tag, , name, value], key) {
  return value.toLowerCase().includes(key) || squeezed(`${tag}|${name}`).includes(squeezed(key));
}

function row([depth, tag, vr, name, value], key) {
  const made = document.createElement("tr");
  const cells = [tag, `${"› ".repeat(depth)}${name || "?"}`, value].map((text) => {
    const cell = document.createElement("td");
    cell.append(...marked(text, key));
    return cell;
  });
  cells[0].title = vr;
  made.append(...cells);
  return made;
}

function marked(text, key) {
  const at = key ? text.toLowerCase().indexOf(key) : -1;
  if (at < 0) return [text];
  const mark = document.createElement("mark");
  mark.textContent = text.slice(at, at + key.length);
  return [text.slice(0, at), mark, text.slice(at + key.length)];
}

/** The value of an attribute at the top of a header. tag: as (GGGG,EEEE). */
export const valueOf = (lines, tag) => lines.find(([depth, one]) => depth === 0 && one === tag)?.[4] ?? "";
