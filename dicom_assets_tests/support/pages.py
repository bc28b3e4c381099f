"""What the pages of documentation show: fenced blocks by language, the commands in them, and commands within sentences.

Belongs here: finding them. Does not belong here: what is done with them (`test_pages`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`((?:dicom-assets|dagster|dagster-daemon|make) [^`]+)`(?!`)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Page and first line: what it is called in a list, whatever is written above it."""
        return f"{self.page}: {self.text.strip().splitlines()[0]}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, each in one line and without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := _COMMENT.sub("", line).strip())]


def blocks(*languages: str) -> list[Block]:
    """All blocks of all pages, or those in some languages."""
    return [one for page in PAGES for one in _of(page) if not languages or one.language in languages]


def _of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        content = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(
            page.relative_to(ROOT).as_posix(), text.count("\n", 0, found.start()) + 1, found["language"], content
        )


def spoken_commands() -> list[tuple[str, str]]:
    """Commands within sentences, with their page."""
    return [
        (page.relative_to(ROOT).as_posix(), re.sub(r"\s+", " ", span))
        for page in PAGES
        for span in _SPAN.findall(page.read_text(encoding="utf-8"))
    ]
