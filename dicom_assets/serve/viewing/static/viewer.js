// The plain viewer: what is shown, and what keys, tools and the list of series change about it.

import { Attributes, valueOf } from "./attributes.js";
import { Frames, asked } from "./frames.js";
import { Stage, letters } from "./stage.js";
import { documentAt, element, listSeries, mark, reportOf, seriesOf } from "./study.js";
import { Windows, ofRange } from "./windows.js";

const AHEAD = 12; // frames that are fetched in the direction of scrolling
const BEHIND = 2;
const LARGE = 1600; // pixels of a side from which on a fitted picture is asked for smaller
const THEME = "dicom-assets-theme";

const by = (id) => document.getElementById(id);
const { root, source, study, others } = document.body.dataset;
const home = new URL(root, location.href).pathname;
const dicomweb = `${home}dicom-web${source}`;

let series = document.body.dataset.series;
let allSeries = [];
let shots = []; // one for each frame of each image, and for each other object
let information = { presets: [], modality: "" };
let at = 0;
let direction = 1;
let playing = 0;
let isInverted = false;
let dragged = null; // the window that a drag began with
let content = null; // of a request for what is no image
let header = [];

const frames = new Frames((address) => address === addressOf(shots[at]) && show());
const stage = new Stage({ step, window: dragWindow, zoomed: () => (want(), overlay()) });
const windows = new Windows((isByMouse) => {
  refresh();
  if (isByMouse) stage.element.focus({ preventScroll: true }); // arrow keys go through the series again
});
const attributes = new Attributes((lines) => {
  header = lines;
  describe();
  names();
});

// Where things are

const written = encodeURIComponent; // of UIDs, which are what objects say
const view = (image, what) => `${home}view${source}/${written(study)}/${written(series)}/${written(image.uid)}/${what}`;

function addressOf(shot) {
  if (shot?.image.kind !== "image") return null;
  const { image, frame } = shot;
  const isLarge = Math.max(image.rows, image.columns) > LARGE && stage.isFitted;
  const form = image.grey ? "accept=image/png" : "accept=image/jpeg&quality=95";
  const size = isLarge ? `&viewport=${LARGE},${LARGE}` : "";
  const window = image.grey ? windows.query : "";
  const place = `studies/${written(study)}/series/${written(series)}/instances/${written(image.uid)}/frames/${frame}`;
  return `${dicomweb}/${place}/rendered?${form}${size}${window}`;
}

// A series

async function openSeries(uid, isNew) {
  stop();
  series = uid;
  if (isNew) history.pushState(null, "", written(uid));
  mark(uid);
  frames.want([]);
  stage.clear();
  say("Loading …");
  try {
    information = await asked(`${home}view${source}/${written(study)}/${written(uid)}/images`);
  } catch (error) {
    say(error.message);
    return;
  }
  if (series !== uid) return;
  shots = information.images.flatMap((image) =>
    Array.from({ length: image.kind === "image" ? image.frames : 1 }, (_, i) => ({ image, frame: i + 1 })),
  );
  at = 0;
  frames.clear();
  by("slider").max = shots.length;
  windows.current = windows.start = null;
  const middle = shots[0]?.image.kind === "image" ? Math.floor(shots.filter(({ image }) => image.kind === "image").length / 2) : 0;
  await windowsOf(shots[middle], uid);
  if (series !== uid) return;
  stage.zoom(null);
  go(middle);
}

/** Offers windows by those of an image in the middle, and takes the full range where it brings none along. */
async function windowsOf(shot, uid) {
  const isGrey = shot?.image.kind === "image" && shot.image.grey;
  by("preset").disabled = !isGrey;
  let values = {};
  if (isGrey) values = await asked(view(shot.image, `values/${shot.frame}`)).catch(() => ({}));
  if (series !== uid) return;
  const full = values.low === null || values.low === undefined ? null : [values.low, values.high];
  windows.offer(isGrey ? information.presets : [], shot?.image.windows ?? [], [], full);
  windows.full = full;
  windows.start = values.window ? { centre: values.window[0], width: values.window[1] } : full && ofRange(full);
  if (full && !values.window && !values.table) windows.chooseFull();
}

/** Names of the file's own windows, once the header is there. */
function names() {
  const image = shots[at]?.image;
  const told = valueOf(header, "(0028,1055)").split("\\").map((one) => one.trim());
  if (!image?.grey || !told[0]) return;
  windows.offer(information.presets, image.windows ?? [], told, windows.full);
}

// Going through it

function step(count) {
  go(at + count);
}

function go(to) {
  if (!shots.length) return say("This series holds nothing that can be shown.");
  const next = Math.max(0, Math.min(shots.length - 1, to));
  if (next !== at) direction = Math.sign(next - at);
  at = next;
  refresh();
}

/** Shows what is current, as soon as it is there, and fetches what will be next. */
function refresh() {
  by("slider").value = at + 1;
  by("position").textContent = `${at + 1} / ${shots.length}`;
  by("slider").setAttribute("aria-valuetext", `Image ${at + 1} of ${shots.length}`);
  attributes.want(view(shots[at].image, "header"));
  want();
  show();
}

function want() {
  const near = [at];
  for (let i = 1; i <= AHEAD; i++) {
    near.push(at + i * direction);
    if (i <= BEHIND) near.push(at - i * direction);
  }
  const wanted = near.filter((i) => i >= 0 && i < shots.length).map((i) => addressOf(shots[i]));
  frames.want([...new Set(wanted.filter(Boolean))]);
}

function show() {
  const shot = shots[at];
  content?.abort();
  by("document").hidden = true;
  if (shot.image.kind !== "image") return showObject(shot);
  try {
    const bitmap = frames.get(addressOf(shot));
    stage.element.classList.toggle("late", !bitmap);
    if (!bitmap) return;
    say("");
    stage.draw(bitmap, shot.image.columns, shot.image.rows, shot.image.tall);
    stage.element.dataset.shown = at + 1;
    stage.element.dataset.address = addressOf(shot);
    overlay();
  } catch (error) {
    nothing(error.message);
  }
}

function nothing(sentence) {
  stage.element.classList.remove("late");
  stage.clear();
  stage.element.dataset.shown = at + 1;
  overlay();
  say(sentence);
}

async function showObject({ image }) {
  nothing(image.says ?? "");
  if (image.kind === "other") return say(`${image.says}\nIts header has all that it says.`);
  const box = by("document");
  content = new AbortController();
  const { signal } = content;
  try {
    const made = image.kind === "report" ? await reportOf(view(image, "report"), signal) : documentAt(view(image, "document"));
    if (signal.aborted) return;
    box.replaceChildren(...made);
    box.hidden = false;
  } catch (error) {
    if (!signal.aborted) say(error.message);
  }
}

function say(sentence) {
  by("message").textContent = sentence;
  by("message").hidden = !sentence;
}

// What stands around the picture

function overlay() {
  const shot = shots[at];
  const isImage = shot?.image.kind === "image";
  const image = shot?.image ?? {};
  const [left, right, up, down] = isImage ? letters(image.directions) : ["", "", "", ""];
  const several = isImage && image.frames > 1 ? `\nframe ${shot.frame} / ${image.frames}` : "";
  const number = image.number === undefined ? "" : `\ninstance number ${image.number}`;
  const cut = information.left_out ? "\nmore objects are in this series than are listed here" : "";
  const scale = isImage ? `${Math.round(stage.scale * 100)} %` : "";
  const millimetres = (value) => `${Number(value.toFixed(2))} mm`.replace("-", "−");
  const place = [
    image.at === undefined ? "" : `at ${millimetres(image.at)}`,
    image.thick ? `${millimetres(image.thick)} thick` : "",
  ];
  const told = {
    "at-top-left": isImage ? `${at + 1} / ${shots.length}${number}${several}${cut}` : "",
    "at-top-right": isImage ? `${image.columns} × ${image.rows}\n${scale}` : "",
    "at-bottom-left": isImage && image.grey ? windows.text(image.windows) + (isInverted ? ", inverted" : "") : isInverted && isImage ? "inverted" : "",
    "at-bottom-right": isImage ? place.filter(Boolean).join("\n") : "",
    "to-left": left, "to-right": right, "to-top": up, "to-bottom": down,
  };
  for (const [id, text] of Object.entries(told)) by(id).textContent = text;
  const inWords = windows.text(image.windows).replace("\n", ", ");
  stage.canvas.setAttribute("aria-label", isImage ? `Image ${at + 1} of ${shots.length}, ${image.grey ? inWords : "colour"}` : "No picture");
}

function describe() {
  const said = (tag) => valueOf(header, tag).replace(/\^+/g, " ").trim();
  const day = (text) => text.replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3");
  const parts = [said("(0010,0010)"), said("(0010,0020)"), day(said("(0010,0030)")) && `born ${day(said("(0010,0030)"))}`];
  parts.push(day(said("(0008,0020)")), said("(0008,1030)"));
  by("who").textContent = parts.filter(Boolean).join(" · ") || "Study";
  const milliseconds = Number(said("(0018,1063)")) || 1000 / (Number(said("(0008,2144)")) || Number(said("(0018,0040)")) || 0);
  if (!playing && shots[at]?.image.frames > 1 && milliseconds > 0 && milliseconds < 1e4) nearestSpeed(1000 / milliseconds);
}

function nearestSpeed(wanted) {
  const options = [...by("speed").options].map((one) => Number(one.value));
  by("speed").value = options.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
}

// Windows, inversion, zoom, play

function dragWindow(right, up, isFirst) {
  const image = shots[at]?.image;
  if (!image?.grey) return;
  if (isFirst) {
    const own = windows.current ?? (image.windows?.[0] ? { centre: image.windows[0][0], width: image.windows[0][1] } : windows.start);
    dragged = own ?? { centre: 128, width: 256 };
  }
  const { centre, width, exact } = dragged;
  const pace = (exact ? width : Math.max(width, 1)) / 250;
  windows.set(centre - up * pace, width + right * pace, exact);
  refresh();
}

function invert() {
  isInverted = !isInverted;
  stage.canvas.classList.toggle("inverted", isInverted);
  by("invert").setAttribute("aria-pressed", isInverted);
  overlay();
}

function play() {
  if (playing || shots.length < 2) return stop();
  by("play").setAttribute("aria-pressed", "true");
  by("play").textContent = "Stop";
  direction = 1;
  playing = setTimeout(turn, 0);
}

/** The next image, but none before the one before it was seen. */
function turn() {
  if (stage.element.dataset.shown === String(at + 1)) {
    if (at === shots.length - 1) [at, direction] = [-1, 1];
    go(at + 1);
  }
  playing = setTimeout(turn, 1000 / Number(by("speed").value));
}

function stop() {
  clearTimeout(playing);
  playing = 0;
  by("play").setAttribute("aria-pressed", "false");
  by("play").textContent = "Play";
}

async function reset() {
  if (isInverted) invert();
  stage.zoom(null);
  frames.clear(); // what could not be had is tried again
  windows.current = null;
  await windowsOf(shots[at], series);
  names();
  refresh();
}

// Keys and tools

function otherSeries(count) {
  const next = allSeries[allSeries.findIndex(({ uid }) => uid === series) + count];
  if (next) openSeries(next.uid, true);
}

function toggleHeader(isShown = document.body.classList.contains("no-header")) {
  document.body.classList.toggle("no-header", !isShown);
  by("show-header").setAttribute("aria-pressed", isShown);
  stage.place();
}

function theme(name = document.documentElement.dataset.theme === "dark" ? "light" : "dark") {
  document.documentElement.dataset.theme = name;
  by("theme").textContent = name === "dark" ? "Light" : "Dark";
  try {
    localStorage.setItem(THEME, name);
  } catch {
    // a browser that keeps nothing begins dark each time
  }
}

const KEYS = {
  ArrowUp: () => step(-1), ArrowLeft: () => step(-1), ArrowDown: () => step(1), ArrowRight: () => step(1),
  PageUp: () => step(-10), PageDown: () => step(10), Home: () => go(0), End: () => go(shots.length - 1),
  "[": () => otherSeries(-1), "]": () => otherSeries(1),
  i: invert, p: play, " ": play, r: reset, h: () => toggleHeader(), t: () => theme(),
  "+": () => stage.zoom(stage.scale * 1.25), "=": () => stage.zoom(stage.scale * 1.25),
  "-": () => stage.zoom(stage.scale / 1.25), f: () => stage.zoom(null), o: () => stage.zoom(1),
  "?": () => by("help").showModal(),
  "/": () => (toggleHeader(true), by("search").focus()),
};

function key(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || by("help").open) return;
  if (target.closest("input[type=search], select, #document, #lines-box")) {
    if (event.key === "Escape") stage.element.focus();
    return;
  }
  const isButton = target.closest("button, a");
  if (isButton && (event.key === " " || event.key === "Enter")) return;
  if (/^[0-9]$/.test(event.key)) {
    if (!by("preset").disabled && windows.choose(Number(event.key))) refresh();
  } else if (KEYS[event.key]) {
    if (!shots.length && event.key !== "?") return;
    KEYS[event.key]();
  } else return;
  event.preventDefault();
}

function wire() {
  document.addEventListener("keydown", key);
  by("slider").addEventListener("input", () => go(Number(by("slider").value) - 1));
  const tools = { invert, play, reset, theme: () => theme(), "show-header": () => toggleHeader(), "show-help": KEYS["?"] };
  tools.smaller = KEYS["-"];
  tools.larger = KEYS["+"];
  tools.fit = KEYS.f;
  tools.actual = KEYS.o;
  for (const [id, does] of Object.entries(tools)) by(id).addEventListener("click", () => does());
  addEventListener("popstate", () => openSeries(decodeURIComponent(location.pathname.split("/").at(-1)), false));
  for (const [name, url] of JSON.parse(others)) by("others").append(element("a", { href: url, textContent: `Open in ${name}` }));
  let kept = null;
  try {
    kept = localStorage.getItem(THEME);
  } catch {
    // as above
  }
  theme(kept === "light" ? "light" : "dark");
  if (innerWidth > 760) stage.element.focus();
}

wire();
openSeries(series, false);
seriesOf(dicomweb, study).then((found) => {
  allSeries = found;
  listSeries(found, dicomweb, study, (uid) => openSeries(uid, true));
  mark(series);
}, (error) => say(error.message));
