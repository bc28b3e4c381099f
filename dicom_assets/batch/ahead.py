"""Reading ahead: batches are expanded and read into their staging while the process does something else.

Belongs here: the thread, and handing over what came of it, errors too. Does not belong here: what expanding and reading
are (`expand`, `read`); when to read ahead (`beginning`, `defs.runner`).

Nothing but staging is written before the batch's run asks for it, so a batch that is read and never run is as claimed
as it was before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dicom_assets.batch.validate import Progress

Tell = Callable[[Progress], None]


class Stopped(Exception):
    """Nobody wants what is being read any more."""


@dataclass(frozen=True)
class Ahead:
    """One batch that is read ahead of its run; results raise what expanding and reading raised.

    run_id: the run that it is read for; staged rows name it. seen: objects and members. outcomes: objects by outcome.
    """

    run_id: str
    seen: Future[int]
    outcomes: Future[Mapping[str, int]]


class ReadingAhead:
    """One thread that reads batches, one after the other, in the order in which they are asked for."""

    def __init__(self) -> None:
        """The thread begins with the first batch."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading-ahead")
        self._stopped = threading.Event()

    def begin(
        self, run_id: str, expand: Callable[[], int], read: Callable[[Tell], Mapping[str, int]], tell: Tell
    ) -> Ahead:
        """Puts a batch into the row."""

        def told(progress: Progress) -> None:
            if self._stopped.is_set():
                raise Stopped
            tell(progress)

        def expanded_and_read() -> Mapping[str, int]:
            seen.result()  # what could not be expanded is not read
            return read(told)

        seen = self._thread.submit(expand)
        return Ahead(run_id, seen, self._thread.submit(expanded_and_read))

    def stop(self) -> None:
        """Breaks off after the chunk that is being read, and waits for that."""
        self._stopped.set()
        self._thread.shutdown(cancel_futures=True)
