// Frames as the server draws them: fetched in the order in which they are wanted, kept, given up when passed over.

const AT_ONCE = 4;
const KEPT_PIXELS = 64e6; // some 240 images of 512 x 512, four bytes each
const AGAIN_MS = 700;

/** Why a frame cannot be shown, as the server says it. */
export class NotShown extends Error {}

/** Fetches frames by their address; `wanted` says which, the most urgent first. */
export class Frames {
  #kept = new Map(); // address → ImageBitmap, oldest first
  #pixels = 0;
  #running = new Map(); // address → AbortController
  #failed = new Map(); // address → NotShown
  #waiting = [];
  #arrived;

  /** arrived: called with the address of a frame that is there, or that will never be. */
  constructor(arrived) {
    this.#arrived = arrived;
  }

  /** The frame of an address if it is there; throws NotShown if it cannot be had. */
  get(address) {
    const failure = this.#failed.get(address);
    if (failure) throw failure;
    const found = this.#kept.get(address);
    if (found) {
      this.#kept.delete(address);
      this.#kept.set(address, found);
    }
    return found ?? null;
  }

  /** From now on these are wanted, the most urgent first; what runs and is not among them is broken off. */
  want(addresses) {
    const wanted = new Set(addresses);
    for (const [address, control] of this.#running) if (!wanted.has(address)) control.abort();
    this.#waiting = addresses.filter((one) => !this.#kept.has(one) && !this.#running.has(one) && !this.#failed.has(one));
    this.#begin();
  }

  /** Forgets failures, so that they are tried again, and all frames. */
  clear() {
    this.#failed.clear();
    for (const one of this.#kept.values()) one.close();
    this.#kept.clear();
    this.#pixels = 0;
  }

  #begin() {
    while (this.#running.size < AT_ONCE && this.#waiting.length) this.#fetch(this.#waiting.shift());
  }

  async #fetch(address) {
    const control = new AbortController();
    this.#running.set(address, control);
    try {
      this.#keep(address, await fetched(address, control.signal));
      this.#arrived(address);
    } catch (error) {
      if (control.signal.aborted) return;
      this.#failed.set(address, error instanceof NotShown ? error : new NotShown("The server cannot be reached."));
      this.#arrived(address);
    } finally {
      this.#running.delete(address);
      this.#begin();
    }
  }

  #keep(address, bitmap) {
    this.#kept.set(address, bitmap);
    this.#pixels += bitmap.width * bitmap.height;
    for (const [oldest, one] of this.#kept) {
      if (this.#pixels <= KEPT_PIXELS || oldest === address) break;
      this.#kept.delete(oldest);
      this.#pixels -= one.width * one.height;
      one.close();
    }
  }
}

async function fetched(address, signal) {
  for (let tries = 0; ; tries++) {
    const answer = await fetch(address, { signal });
    if (answer.ok) {
      const blob = await answer.blob();
      return await createImageBitmap(blob, { colorSpaceConversion: "none" });
    }
    if ((answer.status !== 429 && answer.status !== 503) || tries === 2) throw new NotShown((await answer.text()).trim());
    await new Promise((done) => setTimeout(done, AGAIN_MS * (tries + 1)));
    signal.throwIfAborted();
  }
}

/** JSON from the server; throws NotShown with what it says. */
export async function asked(address, signal) {
  const answer = await fetch(address, { signal });
  if (!answer.ok) throw new NotShown((await answer.text()).trim());
  return await answer.json();
}
