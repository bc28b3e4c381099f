"""What `dicom-assets ingest` does before it needs Dagster: holding the right to claim, claiming, reading ahead.

Belongs here: the first half of an ingest, begun in a thread so that Dagster is imported meanwhile. Does not belong
here: running batches (`defs.runner`), claiming as such (`landing.claims`).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.context import BatchBusy, Work
from dicom_assets.batch.validate import Progress
from dicom_assets.landing.claims import ClaimRound, Haste
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.reading.engine import ReadingEngine, cluster_address
from dicom_assets.settings import Settings, SettingsError
from dicom_assets.storage.files import LakeError
from dicom_assets.storage.locks import LockBusy

Say = Callable[[str], None]

HEAD_START_SECONDS = 2.0
"""How long an ingest lets claiming and listing go before it does anything else beside them."""

_LOOK_SECONDS = 0.5
"""How long one try to be the only ingest lasts."""


@dataclass(frozen=True)
class Round:
    """One round of claiming: what each source brought, the batches whose books are open, and what was unavailable."""

    claimed: Sequence[ClaimRound]
    batches: Sequence[str]
    unavailable: SourceUnavailable | None


@dataclass
class Beginning:
    """An ingest that has begun; a context manager that ends everything it started.

    engine: reads, and outlives it. say: called with a sentence about what happens. progress: called while a batch is
    read.
    """

    settings: Settings
    engine: ReadingEngine
    say: Say = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    runs: dict[str, str] = field(default_factory=dict)
    """The id that the run of a batch is going to have."""
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    _alone: ExitStack = field(default_factory=ExitStack, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        """Starts the first round, without waiting for it."""
        self.work = self._held.enter_context(Work(self.settings, self.progress, self.engine, self.say))
        thread = self._held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="first-round"))
        self._first: Future[Round] | None = thread.submit(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of everything, at the latest when what is being claimed or read has come to an end."""
        self._ended.set()
        self._held.close()
        self._alone.close()

    def _begin(self) -> Round:
        self._wait_to_be_alone()
        self.work.clear_left_staging()
        for batch in self.work.organize_left():
            self.say(f"Batch {batch}: the moving of its objects was broken off and is finished now.")
        # Whoever asks for an ingest has perhaps just mended what kept objects from being read.
        return self._round((), Haste(waiting=True, absent=True))

    def _wait_to_be_alone(self) -> None:
        """Takes the right to claim for as long as an ingest lasts; says so when it has to wait for another one."""
        told = False
        while not self._ended.is_set():
            try:
                self._alone.enter_context(self.work.claiming(wait_seconds=_LOOK_SECONDS))
                return
            except LockBusy:
                if not told:
                    self.say("Another ingest is at work on this lake; waiting until it has ended.")
                told = True
        raise LakeError("The ingest was ended while it waited for another one.")

    def wait_for_reading(self, seconds: float = HEAD_START_SECONDS) -> None:
        """Waits until processes read the first batch, or until there is none; at most so long.

        What this process does meanwhile would only keep it from handing them something to read.
        """
        first = self._first
        if first is None:
            return
        until = time.monotonic() + seconds
        wait([first], seconds)
        if first.done() and first.exception() is None and first.result().batches:
            ahead = self.work.ahead(first.result().batches[0])
            if ahead is not None:
                wait([ahead.seen], max(0.0, until - time.monotonic()))

    def next_round(self, done: Sequence[str]) -> Round:
        """Claims what is new. done: batches that were run already. Raises LakeError, SettingsError."""
        if self._first is not None:
            first, self._first = self._first, None
            return first.result()
        return self._round(done)

    def _round(self, done: Sequence[str], haste: Haste = Haste()) -> Round:  # noqa: B008 - frozen
        claimed: Sequence[ClaimRound] = ()
        unavailable: SourceUnavailable | None = None
        try:
            claimed = claim_everywhere(self.work, haste)
        except SourceUnavailable as error:
            unavailable = error  # what the other sources brought is run all the same
        batches = [batch for batch in self.work.unclosed() if batch not in done]
        if batches:
            self.read_ahead(batches[0])
        return Round(claimed, batches, unavailable)

    def read_ahead(self, batch_id: str) -> None:
        """Begins to read a batch unless somebody else holds it, or its run will say what is wrong."""
        if cluster_address() is not None:
            return  # a cluster reads in its own time
        try:
            self.work.read_ahead(batch_id, self.run_id(batch_id))
        except (BatchBusy, SettingsError):
            return

    def run_id(self, batch_id: str) -> str:
        """The id that the next run of a batch has."""
        return self.runs.setdefault(batch_id, str(uuid.uuid4()))
