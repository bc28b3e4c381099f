"""What long work says while it lasts, on stderr; and tables on stdout.

Belongs here: terminals. A terminal gets a bar, anything else plain lines.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence, Set
from textwrap import wrap
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dicom_assets.printing import visible

if TYPE_CHECKING:
    from dicom_assets.batch.validate import Progress as Reading

LINE_SECONDS = 5.0
_GAP = 2
"""Blanks between columns."""
_PROSE = 16
"""The narrowest that a column of sentences becomes; no word is broken, which may be an id."""
_READABLE = 80
"""The widest, where there is no terminal."""


class Reporter:
    """Says what happens: a bar on a terminal, at most a line every LINE_SECONDS elsewhere."""

    def __init__(self) -> None:
        """Looks at stderr."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._tasks: dict[str, object] = {}
        self._said = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        """Begins."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        if self._bar is not None:
            self._bar.stop()

    def say(self, sentence: str) -> None:
        """One sentence on a line of its own."""
        self._console.print(visible(sentence), markup=False, emoji=False)

    def show(self, reading: Reading) -> None:
        """How far the reading of a batch is."""
        batch = reading.batch_id
        if self._bar is not None:
            if batch not in self._tasks:
                self._tasks[batch] = self._bar.add_task(batch, total=reading.total, rate="")
            self._bar.update(self._tasks[batch], completed=reading.done, rate=f"{reading.rate:,.0f} objects/s")  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if reading.done == reading.total or now - self._said >= LINE_SECONDS:
            self._said = now
            left = f", {reading.seconds_left:.0f} s left" if reading.done < reading.total else ""
            self.say(f"Batch {batch}: {reading.done} of {reading.total} objects, {reading.rate:,.0f}/s{left}")

    def count(self, what: str, done: int) -> None:
        """How many are done of something whose end is not known."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=None, rate="")
            self._bar.update(self._tasks[what], completed=done)  # type: ignore[arg-type]
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.say(f"{done} {what}")


def print_table(names: Sequence[str], rows: Sequence[Sequence[object]], prose: Sequence[str] = ()) -> None:
    """Rows on stdout, numbers to the right, NULL as nothing; no value is ever cut, so that it can be copied.

    prose: columns of sentences, which alone are broken, between words. What is still wider than the terminal is printed
    one value a line, where only the terminal breaks what is no sentence, and copies it whole. What is no terminal has
    no width: only sentences are broken there.
    """
    shown = [visible(name) for name in names]
    cells = [["" if value is None else visible(str(value)) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(shown, *cells, strict=True)]
    words = [
        max((cell_len(word) for cell in column for word in cell.split()), default=0)
        for column in zip(shown, *cells, strict=True)
    ]
    on_terminal = sys.stdout.isatty()
    most, least = (
        [
            min(width, max(narrow, longest)) if name in prose else width
            for name, width, longest in zip(names, widths, words, strict=True)
        ]
        for narrow in (_READABLE, _PROSE)
    )
    limit = shutil.get_terminal_size().columns if on_terminal else sum(most) + _GAP * (len(most) + 1)
    console = Console(width=limit, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if rows and sum(least) + _GAP * (len(least) - 1) > limit:
        _print_records(console, shown, cells, {index for index, name in enumerate(names) if name in prose})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(
            shown[index], justify="right" if numeric else "left", overflow="fold", no_wrap=name not in prose,
            min_width=least[index],
        )  # fmt: skip
    for row in cells:
        table.add_row(*row)
    if on_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_records(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]], prose: Set[int]) -> None:
    """Each value on a line of its own, behind its column's name. prose: columns of sentences, broken between words."""
    widest = max(map(cell_len, names))
    width = max(console.width - widest - _GAP, _PROSE)
    for number, row in enumerate(rows, 1):
        console.print(f"-[ {number} ]".ljust(min(console.width, 40), "-"), style="dim")
        for index, (name, value) in enumerate(zip(names, row, strict=True)):
            left = name + " " * (widest - cell_len(name) + _GAP)
            lines = wrap(value, width, break_long_words=False, break_on_hyphens=False) if index in prose else [value]
            text = f"\n{' ' * cell_len(left)}".join(lines)
            console.print(f"{left}{text}".rstrip(), soft_wrap=True)
