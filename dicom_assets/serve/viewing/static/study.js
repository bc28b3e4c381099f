// The list of the study's series, and objects that are no images.

import { asked } from "./frames.js";

const WITHOUT_PICTURES = new Set(["SR", "KO", "PR", "RTSTRUCT", "RTPLAN", "DOC", "ECG", "HD", "REG", "AU", "PLAN"]);

const first = (element) => element?.Value?.[0];

/** The series of a study, in order: uid, modality, description, number, count. */
export async function seriesOf(dicomweb, study) {
  const address = `${dicomweb}/studies/${encodeURIComponent(study)}/series?includefield=0008103E&includefield=00201209&limit=10000`;
  return (await asked(address)).map((one) => ({
    uid: first(one["0020000E"]),
    modality: first(one["00080060"]) ?? "",
    description: first(one["0008103E"]) ?? "",
    number: first(one["00200011"]),
    count: first(one["00201209"]),
  }));
}

/** Shows them as links. chosen: called with the UID of the one that is chosen. */
export function listSeries(found, dicomweb, study, chosen) {
  const items = found.map((series) => {
    const link = element("a", { href: encodeURIComponent(series.uid) });
    link.dataset.uid = series.uid;
    link.append(thumbnail(series, `${dicomweb}/studies/${encodeURIComponent(study)}/series/${encodeURIComponent(series.uid)}/thumbnail?accept=image/jpeg`));
    const name = series.description || (series.number === undefined ? "Series" : `Series ${series.number}`);
    link.append(element("span", { className: "name", title: name, textContent: name }));
    const count = series.count === 1 ? "1 object" : `${(series.count ?? 0).toLocaleString("en")} objects`;
    const number = series.number === undefined ? [] : [`#${series.number}`];
    link.append(element("span", { className: "count", textContent: [series.modality, ...number, count].filter(Boolean).join(" · ") }));
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      chosen(series.uid);
    });
    const item = element("li");
    item.append(link);
    return item;
  });
  document.getElementById("series-list").replaceChildren(...items);
}

function thumbnail(series, address) {
  const box = element("span", { className: "thumb" });
  const instead = () => box.replaceChildren(series.modality || "?");
  if (WITHOUT_PICTURES.has(series.modality)) instead();
  else {
    const image = element("img", { alt: "", loading: "lazy", src: address });
    image.addEventListener("error", instead);
    box.append(image);
  }
  return box;
}

/** Marks the series that is shown. */
export function mark(uid) {
  for (const link of document.querySelectorAll("#series-list a")) {
    if (link.dataset.uid === uid) {
      link.setAttribute("aria-current", "true");
      const list = document.getElementById("series"); // which is scrolled alone: the page stays where it is
      list.scrollTo({ left: link.offsetLeft - 40, top: link.offsetTop - 40 });
    } else link.removeAttribute("aria-current");
  }
}

/** What is shown of a report. */
export async function reportOf(address, signal) {
  const report = await asked(address, signal);
  const made = [element("h2", { textContent: report.title || "Report" })];
  if (report.state) made.push(element("p", { className: "state", textContent: report.state }));
  const tops = [element("ul")];
  for (const [depth, concept, value] of report.lines) {
    tops.length = Math.min(tops.length, depth + 1);
    while (tops.length < depth + 1) tops.push(under(tops.at(-1)));
    const item = element("li");
    if (concept) item.append(element("b", { textContent: value ? `${concept}: ` : concept }));
    item.append(element("span", { textContent: value }));
    tops.at(-1).append(item);
  }
  if (!report.lines.length) made.push(element("p", { textContent: "This report holds no content." }));
  return [...made, tops[0]];
}

function under(list) {
  const made = element("ul");
  (list.lastElementChild ?? list.appendChild(element("li"))).append(made);
  return made;
}

/** A PDF in the page, and a link to it alone. */
export function documentAt(address) {
  const line = element("p");
  line.append(element("a", { href: address, target: "_blank", rel: "noopener", textContent: "Open the PDF in a tab of its own" }));
  return [line, element("iframe", { src: address, title: "PDF" })];
}

export function element(kind, values = {}) {
  return Object.assign(document.createElement(kind), values);
}
