"""What long work says while it lasts, on stderr; and tables on stdout.

Belongs here: terminals. A terminal gets a bar, anything else plain lines.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dicom_assets.printing import visible

if TYPE_CHECKING:
    from dicom_assets.batch.validate import Progress as Reading

LINE_SECONDS = 5.0
PLAIN_WIDTH = 200


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


def print_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows on stdout, numbers to the right, NULL as nothing."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(visible(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else visible(str(value)) for value in row))
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)
