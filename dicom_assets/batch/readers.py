"""Reading processes that several batches share, started while the first batch is still being prepared.

Belongs here: when processes start. Does not belong here: how they are kept (`engine`), what they do (`judge`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from dicom_assets.batch import judge
from dicom_assets.batch.engine import Beat, ProcessEngine, Result, worker_count
from dicom_assets.settings import ReadingLimits


@dataclass(frozen=True)
class _Nothing:
    """A chunk without objects: reading it makes a process import what it needs."""

    objects: tuple[judge.ObjectTask, ...] = ()
    poison: dict[str, str] = field(default_factory=dict)


def imported(chunk: _Nothing, beat: Beat) -> int:
    """What a process does to be ready: this function's module has imported the reader."""
    return len(pa.array(chunk.objects, pa.null()))  # pyarrow imports pandas at the first array


class Readers:
    """A ReadingEngine of processes; a context manager that ends them."""

    def __init__(self, limits: ReadingLimits) -> None:
        """Nothing is started yet."""
        self._engine = ProcessEngine(limits)
        self._count = worker_count(limits)
        self._starting: threading.Thread | None = None

    def start(self) -> None:
        """Starts the processes without waiting for them; once."""
        if self._starting is None:
            self._starting = threading.Thread(target=self._start, name="starting-readers", daemon=True)
            self._starting.start()

    def _start(self) -> None:
        for _ in self._engine.run(imported, [_Nothing()] * self._count):
            pass

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Iterator[Result]:
        """See ReadingEngine."""
        if self._starting is not None:
            self._starting.join()
        return self._engine.run(function, chunks)

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes."""
        if self._starting is not None:
            self._starting.join()
        self._engine.close()
