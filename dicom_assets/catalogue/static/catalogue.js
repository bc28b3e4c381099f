// Everything works without this file; it makes pages quicker to use by keyboard.
"use strict";

const isTyping = (target) => target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");

// "/" goes to the search of the page, "j" and "k" through its rows.
document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector("[data-search]");
    if (event.key === "Escape" && event.target === search && search.value === "") search.blur();
    if (isTyping(event.target)) return;
    if (event.key === "/" && search) {
        event.preventDefault();
        search.focus();
        search.select();
    } else if (event.key === "j" || event.key === "k") {
        const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
        if (rows.length === 0) return;
        const at = rows.indexOf(document.activeElement);
        const next = at < 0 ? (event.key === "j" ? 0 : rows.length - 1) : at + (event.key === "j" ? 1 : -1);
        rows[Math.min(Math.max(next, 0), rows.length - 1)].focus();
    }
});

// A picture that cannot be drawn leaves its place to the words beside it.
for (const picture of document.querySelectorAll("img[data-thumbnail]")) {
    const tell = () => {
        if (picture.naturalWidth > 0) picture.classList.add("is-there");
        else picture.parentElement.classList.add("without-picture");
    };
    if (picture.complete && picture.currentSrc) tell();
    picture.addEventListener("load", tell);
    picture.addEventListener("error", tell);
}

// What is typed into a search with data-filter leaves the lines of a table that have all of its words, and those that
// they are nested in. Whoever sends the form searches lines that the page does not show, too.
for (const field of document.querySelectorAll("[data-filter]")) {
    const lines = [...document.getElementById(field.dataset.filter).tBodies[0].rows].map((row) => ({
        row,
        depth: Number(row.dataset.depth),
        text: `${row.textContent} ${row.dataset.words}`.toLowerCase(),
    }));
    const count = document.querySelector(`[data-shown="${field.dataset.filter}"]`);
    const filter = () => {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        const above = [];
        for (const line of lines) {
            above.length = line.depth;
            line.kept = words.every((word) => line.text.includes(word));
            if (line.kept) above.forEach((parent) => { if (parent) parent.kept = true; });
            above[line.depth] = line;
        }
        for (const line of lines) line.row.hidden = !line.kept;
        if (count) count.textContent = lines.filter((line) => line.kept).length.toLocaleString("en");
    };
    field.addEventListener("input", filter);
}
