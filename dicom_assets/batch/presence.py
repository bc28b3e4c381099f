"""Whether the source of a batch is there while it is read: a batch of a source that looks emptied waits.

Belongs here: looking again when objects of a batch are gone, and pausing the batch. Does not belong here: what a look
is and when it is believed (`landing.looks`), what becomes of a single object that is gone (`judge`).

Looking costs a listing of the whole source, so a batch looks only when the last look was doubtful, or when something
that it claimed is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import pyarrow.compute as pc

from dicom_assets.batch.books import Books, Status
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.landing.looks import Look, Looks, SourceEmptied, Watch, limits_of, sentence
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore
from dicom_assets.settings import Settings, SourceSettings

T = TypeVar("T")
P = ParamSpec("P")

GONE = "OBJECT_GONE"


class BatchOfSource(Protocol):
    """A batch that a process holds, as far as its source is concerned: see `context.OpenBatch`."""

    @property
    def batch_id(self) -> str:
        """Its id."""
        ...

    @property
    def staging(self) -> Staging:
        """What is staged of it."""
        ...

    @property
    def source(self) -> SourceSettings:
        """The source that it was claimed from."""
        ...

    @property
    def source_name(self) -> str:
        """The name of that source."""
        ...

    @property
    def is_dismissed(self) -> bool:
        """Whether its objects are not looked at."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of the process."""
        ...

    @property
    def looks(self) -> Looks:
        """What is remembered of the sources."""
        ...

    def stop(self, status: Status, reason: str, run_id: str, *, code: str | None = None) -> Books:
        """Pauses it."""
        ...


Held = TypeVar("Held", bound=BatchOfSource)


def watch(looks: Looks, settings: Settings, store: LandingStore) -> Watch:
    """The listing of a source, to be compared with its last look."""
    source = settings.source(store.name)
    return Watch(store, looks, source, limits_of(source, settings.claiming))


def look_again(looks: Looks, settings: Settings, source: SourceSettings) -> None:
    """Lists a source to its end. Raises SourceEmptied, SourceUnavailable, LakeError."""
    deque(watch(looks, settings, open_store(source))(), maxlen=0)


def confirm(looks: Looks, settings: Settings, source: SourceSettings) -> Look:
    """Takes what is there now as what is to be there. Raises SourceUnavailable, LakeError."""
    looking = watch(looks, settings, open_store(source))
    looking.confirming = True
    deque(looking(), maxlen=0)
    if looking.found is None:
        raise AssertionError("a whole listing is a look")
    return looking.found


def doubts(looks: Looks, sources: Sequence[str]) -> dict[str, str]:
    """What is doubtful about sources, in a sentence each, from what is remembered. Raises LakeError."""
    found: dict[str, str] = {}
    for source in sources:
        memory = looks.memory(source)
        if memory.believed is not None and memory.doubted is not None:
            found[source] = sentence(source, memory.believed, memory.doubted)
    return found


def require_source(batch: BatchOfSource, part: Part, column: str) -> None:
    """After a step of a batch: looks again when objects are gone. Raises SourceEmptied, SourceUnavailable.

    part, column: staged rows, and where their code stands. Where there is no file system that may be away in part, it
    takes more than the share that may be missing.
    """
    gone, all_of_it = _gone(batch.staging, part, column)
    store = open_store(batch.source)
    limits = limits_of(batch.source, batch.settings.claiming)
    if gone and (store.device() is not None or gone > limits.share * all_of_it):
        look_again(batch.looks, batch.settings, batch.source)


def _gone(staging: Staging, part: Part, column: str) -> tuple[int, int]:
    gone = rows = 0
    for batch in staging.batches(part, [column]):
        rows += len(batch)
        gone += pc.sum(pc.equal(batch.column(column), GONE)).as_py() or 0
    return gone, rows


def while_source_is_there(
    step: Callable[Concatenate[Held, str, P], T],
) -> Callable[Concatenate[Held, str, P], T]:
    """A step of a batch that does not begin while its source looks emptied, and whose batch waits when it turns out so.

    The batch is paused, and noted as waiting: it is run again when the source is as it was, or confirmed.
    """

    @wraps(step)
    def guarded(batch: Held, run_id: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        looks = batch.looks
        try:
            if looks.is_emptied(batch.source_name) and not batch.is_dismissed:
                look_again(looks, batch.settings, batch.source)
            done = step(batch, run_id, *args, **kwargs)
        except SourceEmptied as error:
            looks.wait(batch.batch_id, run_id)
            batch.stop(Status.PAUSED, str(error), run_id, code="SOURCE_EMPTIED")
            raise
        looks.wait_no_more(batch.batch_id)
        return done

    return guarded
