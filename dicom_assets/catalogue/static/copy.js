// Buttons that copy a command. Without this file commands are text that can be selected.
"use strict";

const select = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
};

// A page that came over plain HTTP from another machine has no clipboard; the older way works there.
const copy = async (code) => {
    try {
        await navigator.clipboard.writeText(code.textContent);
        return true;
    } catch {
        select(code);
        return document.execCommand("copy");
    }
};

for (const button of document.querySelectorAll("button[data-copies]")) {
    const code = document.getElementById(button.dataset.copies);
    button.hidden = false;
    button.addEventListener("click", async () => {
        const done = await copy(code);
        const said = done ? "Copied" : "Selected: copy it with Ctrl+C";
        button.textContent = said;
        for (const place of document.querySelectorAll("[data-copied]")) place.textContent = `${said}: ${code.textContent}`;
        setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
}
