"""Reading processes that several batches share, started before the first of them is known.

Belongs here: when processes start. It imports no reader itself, so that a command can start them before anything else.
Does not belong here: how they are kept (`engine`), what they do (`judge`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self

from dicom_assets.reading.engine import Beat, ProcessEngine, Result, cluster_address, worker_count
from dicom_assets.reading.worker import Preparing, prepare
from dicom_assets.settings import ReadingLimits

READER = "dicom_assets.reading.judge"
"""What a process imports while there is nothing to read yet."""


class Readers:
    """A ReadingEngine of processes; a context manager that ends them."""

    def __init__(self, limits: ReadingLimits) -> None:
        """Nothing is started yet."""
        self._engine = ProcessEngine(limits)
        self._count = worker_count(limits)
        self._starting: threading.Thread | None = None
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Starts the processes without waiting for them, unless a cluster reads."""
        if cluster_address() is None:
            self._starting = threading.Thread(target=self._start, name="starting-readers", daemon=True)
            self._starting.start()

    def _start(self) -> None:
        for _ in self._engine.run(prepare, [Preparing(READER)] * self._count):
            pass

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """See ReadingEngine. Whoever comes while another run lasts waits for its end."""
        if self._starting is not None:
            self._starting.join()
        with self._one_at_a_time:
            yield from self._engine.run(function, chunks)

    def __enter__(self) -> Self:
        """Starts the processes."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes."""
        if self._starting is not None:
            self._starting.join()
        self._engine.close()
