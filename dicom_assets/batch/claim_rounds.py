"""Rounds of claiming that fit into a tick: from events in queues, and from listings that go on where they ended.

Belongs here: which message or blob leads to which claim, what becomes of messages that cannot be read. Does not
belong here: the claim itself (`landing.claims`), what a message says (`landing.events`), Dagster.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.presence import watch
from dicom_assets.lake.overwritten import last_of_source
from dicom_assets.landing.claims import ClaimRound, Haste, claim_listed
from dicom_assets.landing.events import BlobEvent, EventQueue, Message, listing, newest
from dicom_assets.landing.looks import Left, SourceEmptied, Watch
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.pace import claim_from, recent_rounds
from dicom_assets.landing.restorations import Restorations
from dicom_assets.landing.store import (
    AnnouncedStore,
    LandingStore,
    ResumableStore,
    SourceUnavailable,
    object_id,
)
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import INGESTION_ERRORS
from dicom_assets.settings import SourceSettings
from dicom_assets.storage.locks import LockBusy

_LOOK_SECONDS = 0.5
_TAKING_SECONDS = 20.0
"""How long one round takes messages of a queue."""


@dataclass
class QueueRound:
    """What one round over one queue did, in messages, but for claimed (batches) and superseded (events).

    filtered: about nothing that a source wants, and deleted. waiting: left for the next round, since a batch was full
    already. unreadable: put back to be tried again. poisoned: moved to the poison queue. gathering: not taken, since
    more are awaited, at the latest until `gathers_until`.
    """

    messages: int = 0
    claimed: int = 0
    superseded: int = 0
    filtered: int = 0
    waiting: int = 0
    unreadable: int = 0
    poisoned: int = 0
    gathering: int = 0
    gathers_until: datetime | None = None

    def counts(self) -> Iterator[tuple[str, int]]:
        """What was done, each with its number."""
        return ((kind, number) for kind, number in vars(self).items() if isinstance(number, int))


@dataclass
class _Round:
    """Messages of one round, with the objects that each of them stands for."""

    kept: list[tuple[Message, list[tuple[str, str]]]] = field(default_factory=list)
    events: dict[str, list[BlobEvent]] = field(default_factory=lambda: defaultdict(list))
    done: list[Message] = field(default_factory=list)


def claim_everywhere(
    work: RunContext,
    haste: Haste = Haste(),  # noqa: B008 - frozen
    grows: Callable[[], None] = lambda: None,
) -> list[ClaimRound]:
    """Claims what is new in every source, and what is to be read again. Raises SourceUnavailable, LakeError.

    A source that cannot be listed keeps no other from being claimed: it is told when all have had their turn. Of one
    that looks emptied nothing is claimed, and `work.looks.emptied` says so. grows: called as soon as a source has more
    than before.
    """
    claimed: list[ClaimRound] = []
    unavailable: list[str] = []
    for store in work.stores():
        try:
            watched = watch(work.looks, work.settings, store)
            watched.grows = grows
            claimed.append(claim_watched(work, watched, haste))
        except SourceEmptied:
            continue
        except SourceUnavailable as error:
            unavailable.append(str(error))
    if unavailable:
        raise SourceUnavailable(" ".join(unavailable))
    return claimed


@dataclass(frozen=True)
class Delivery:
    """What an ingest has to do: what each source brought, the batches whose books are open, what was unavailable."""

    claimed: Sequence[ClaimRound]
    batches: Sequence[str]
    unavailable: SourceUnavailable | None


def next_delivery(work: RunContext, done: Collection[str], haste: Haste = Haste()) -> Delivery:  # noqa: B008 - frozen
    """Claims what is new. done: batches that were run already. Raises LakeError, SettingsError.

    What other sources brought is run although one is unavailable.
    """
    claimed: Sequence[ClaimRound] = ()
    unavailable: SourceUnavailable | None = None
    try:
        claimed = claim_everywhere(work, haste, work.expect_reading)
    except SourceUnavailable as error:
        unavailable = error
    return Delivery(claimed, [batch for batch in work.unclosed() if batch not in done], unavailable)


@contextmanager
def only_ingest(work: RunContext) -> Iterator[None]:
    """The right to claim for as long as an ingest lasts; says so when it waits for another one. Raises LakeError."""
    with ExitStack() as held:
        try:
            held.enter_context(work.claiming(_LOOK_SECONDS))
        except LockBusy:
            work.say("Another ingest is at work on this lake; waiting until it has ended.")
            held.enter_context(work.claiming(math.inf))
        yield


def claim_watched(
    work: RunContext,
    watched: Watch,
    haste: Haste = Haste(),  # noqa: B008 - frozen
    *,
    paced: bool = False,
) -> ClaimRound:
    """Claims what is new in a listing that is compared with the last look. Raises SourceUnavailable, LakeError.

    paced: see `claim_listed`.
    """
    source = watched.source.name
    claimed = claim_listed(
        source,
        watched,
        work.log,
        work.settings.claiming,
        haste=haste,
        restorations=_restorations(work, source),
        paced=paced,
    )
    if watched.found is not None:
        _record_passed_over(work, watched)
        _note_left(work, watched, claimed)
    return claimed


def _note_left(work: RunContext, watched: Watch, claimed: ClaimRound) -> None:
    """Notes what a round saw and did not claim, for whoever asks how long things wait; written when it changes."""
    objects, before = claimed.waiting + claimed.gathering, watched.left
    if not objects and before is None:
        return
    since = before.since if before is not None and not claimed.claims else datetime.now(UTC).isoformat()
    left = Left(objects, since) if objects else None
    if left != before:
        source = watched.source.name
        work.looks.remember(source, replace(work.looks.memory(source), left=left))


def _restorations(work: RunContext, source: str) -> Restorations:
    """What finds the objects of a source that came back as older versions of themselves."""
    return Restorations(last_of_source(work.lake, source), work.log.attempts(), work.log.after)


def _record_passed_over(work: RunContext, watched: Watch) -> None:
    """Enters the places of a source that could not be listed in ingestion_errors, instead of earlier ones."""
    source, places = watched.source.name, watched.passed_over
    ids = [object_id(source, place.uri, "", None) for place in places]
    told = hashlib.blake2b("".join(sorted(ids)).encode(), digest_size=8).hexdigest() if places else ""
    if told == watched.told:
        return
    rows = [
        {
            "batch_id": f"source-{source}",
            "object_id": one,
            "stage": "claim",
            "code": "FOLDER_UNREADABLE",
            "record": 0,
            "severity": str(CODES["FOLDER_UNREADABLE"].severity),
            "detail": place.detail,
            "uri": place.uri,
            "occurred_at": datetime.now(UTC),
        }
        for one, place in zip(ids, places, strict=True)
    ]
    with work.lake.committing(INGESTION_ERRORS.name):
        table = pa.Table.from_pylist(rows, schema=INGESTION_ERRORS.schema)
        work.lake.replace(INGESTION_ERRORS.name, [f"source-{source}"], table)
    work.looks.remember(source, replace(work.looks.memory(source), told=told, unread=len(places)))


def queues(work: RunContext) -> dict[tuple[str, str], list[SourceSettings]]:
    """The configured queues by account and name, each with the sources that it brings events of."""
    found: dict[tuple[str, str], list[SourceSettings]] = defaultdict(list)
    for source in work.settings.sources:
        if source.queue:
            queue = EventQueue(source.queue, source.root)
            found[queue.account, queue.name].append(source)
    return dict(found)


def claim_from_queue(work: RunContext, sources: Sequence[SourceSettings], *, paced: bool = False) -> QueueRound:
    """Takes messages of one queue, claims what they announce, and deletes those whose claim is durable.

    sources: those with this queue. paced: whether few messages are left where
    they are until more have come (`landing.pace`). Call it with the right to claim. Raises SourceUnavailable,
    LakeError; messages that are not deleted by then are delivered again.
    """
    first = sources[0]
    queue = EventQueue(first.queue or "", first.root)
    limits = work.settings.events
    stores = [store for store in (open_store(source) for source in sources) if isinstance(store, AnnouncedStore)]
    taken, round_ = QueueRound(), _Round()
    if paced:
        _leave_few(work, queue, sources, taken)
    if not taken.gathering:
        until = time.monotonic() + _TAKING_SECONDS
        for message in queue.take(limits.messages_per_tick, limits.visible_again_seconds):
            taken.messages += 1
            _sort(message, stores, round_, taken, queue, work)
            if time.monotonic() > until:
                break
    _claim(work, round_, taken)
    for store in stores:
        if store.name not in round_.events:  # what is to be read again is due whether there are events or not
            taken.claimed += len(claim_listed(store.name, lambda: (), work.log, work.settings.claiming).claims)
    queue.delete(round_.done)
    return taken


def _leave_few(work: RunContext, queue: EventQueue, sources: Sequence[SourceSettings], taken: QueueRound) -> None:
    """Notes in `taken` when the messages that are there wait for more: who takes one hides it for minutes."""
    now = datetime.now(UTC)
    claiming = work.settings.claiming
    arrivals = queue.arrivals()
    past = recent_rounds(work.log.claims(), [source.name for source in sources], now)
    due = claim_from(past, arrivals, now, claiming) if arrivals.complete else now
    if due > now:
        taken.gathering, taken.gathers_until = arrivals.complete, due


def _sort(
    message: Message,
    stores: Sequence[AnnouncedStore],
    round_: _Round,
    taken: QueueRound,
    queue: EventQueue,
    work: RunContext,
) -> None:
    """Decides about one message; what it announces waits in `round_`."""
    if message.fault is not None:
        if message.tries < work.settings.events.tries:
            queue.put_back(message)
            taken.unreadable += 1
        else:
            # In this order: a kill in between leaves the message in the queue, and each step may be done twice.
            queue.poison(message)
            _record_poison(work, queue, message)
            queue.delete([message])
            taken.poisoned += 1
        return
    wanted = [(store.name, event) for event in message.events for store in stores if store.serves(event.uri)]
    if not wanted:
        taken.filtered += 1
        round_.done.append(message)
        return
    for source, event in wanted:
        round_.events[source].append(event)
    ids = [(source, object_id(source, event.uri, event.etag, None)) for source, event in wanted]
    round_.kept.append((message, ids))


def _claim(work: RunContext, round_: _Round, taken: QueueRound) -> None:
    """Claims what the messages announce, and finds the messages that are done with.

    What an event announces is there: it is claimed at once even if it was absent before.
    """
    # A blob of an event is complete: there is nothing to wait for.
    claiming = work.settings.claiming.model_copy(update={"quiet_seconds": 0.0})
    settled: set[tuple[str, str]] = set()
    for source, events in round_.events.items():
        latest = newest(events)
        rows = listing(latest)
        announced = Haste(absent=True)
        restorations = _restorations(work, source)
        claimed = claim_listed(
            source,
            lambda rows=rows: [rows],  # type: ignore[misc]
            work.log,
            claiming,
            haste=announced,
            restorations=restorations,
        )
        taken.claimed += len(claimed.claims)
        taken.superseded += len({(e.place, e.etag) for e in events}) - len(latest)
        current = {event.place: object_id(source, event.uri, event.etag, None) for event in latest}
        ids = list(current.values())
        missing = work.log.claimed_ids(source).missing(pa.array(ids, pa.string()))
        durable = {one for one, lacks in zip(ids, missing, strict=True) if not lacks}
        # An event that a later one of the same blob stands in for is done with when that one is.
        settled |= {
            (source, object_id(source, event.uri, event.etag, None))
            for event in events
            if current[event.place] in durable
        }
    for message, wanted in round_.kept:
        if settled.issuperset(wanted):
            round_.done.append(message)
        else:
            taken.waiting += 1


def _record_poison(work: RunContext, queue: EventQueue, message: Message) -> None:
    """Enters a message that nobody can read in ingestion_errors, under a key of its own."""
    name = f"{queue.account}/{queue.name}/{message.message.id}"
    key = hashlib.blake2b(name.encode(), digest_size=10).hexdigest()
    row: dict[str, Any] = {
        "batch_id": f"event-{key}",
        "object_id": key,
        "stage": "event",
        "code": "EVENT_UNREADABLE",
        "record": 0,
        "severity": str(CODES["EVENT_UNREADABLE"].severity),
        "detail": f"Message of queue {queue.name}: {message.fault}. It was delivered {message.tries} times.",
        "occurred_at": datetime.now(UTC),
    }
    with work.lake.committing(INGESTION_ERRORS.name):
        rows = pa.Table.from_pylist([row], schema=INGESTION_ERRORS.schema)
        work.lake.replace(INGESTION_ERRORS.name, [row["batch_id"]], rows)


class _Page:
    """A listing that ends when its time is up, and knows where."""

    def __init__(self, watched: Watch, after: str | None, until: float) -> None:
        self._watched, self._store, self._after, self._until = watched, watched.store, after, until
        self.last: str | None = None
        self._resumable = isinstance(watched.store, ResumableStore)
        watched.begins_at = after if self._resumable else None
        watched.listing, watched.ends_at = self, lambda: self.last

    def __call__(self) -> Iterator[pa.RecordBatch]:
        """Begins anew."""
        self.last = None
        noticed = self._watched.passed_over.append
        if isinstance(self._store, ResumableStore):
            batches = self._store.list_after(self._after, passed_over=noticed)
        else:
            batches = self._store.list(passed_over=noticed)
        for batch in batches:
            yield batch
            if self._resumable and time.monotonic() > self._until:
                self.last = batch.column("uri")[-1].as_py()
                return


def claim_by_listing(
    work: RunContext, stores: Sequence[LandingStore], cursor: str | None, seconds: float, *, paced: bool = False
) -> tuple[list[ClaimRound], str, SourceUnavailable | None]:
    """Claims what is new in some sources, as far as their listings come in a while.

    cursor: what the last round returned. seconds: time for all listings together. Returns what was claimed, the cursor
    for the next round, and what kept sources from being listed, if anything did. paced: see `claim_listed`. Raises
    LakeError.
    """
    places: dict[str, str] = json.loads(cursor) if cursor else {}
    claimed: list[ClaimRound] = []
    unavailable: list[str] = []
    begun = time.monotonic()
    for index, store in enumerate(stores):
        left = begun + seconds - time.monotonic()
        watched = watch(work.looks, work.settings, store)
        page = _Page(watched, places.get(store.name), time.monotonic() + max(left, 0) / (len(stores) - index))
        try:
            found = claim_watched(work, watched, paced=paced)
        except SourceUnavailable as error:
            unavailable.append(str(error))
            if isinstance(error, SourceEmptied):
                places.pop(store.name, None)  # the next look is at the whole of it
            continue
        claimed.append(found)
        if page.last is not None:
            places[store.name] = page.last
        elif found.more:
            places.setdefault(store.name, "")  # as many batches as a round may make: the next one begins here again
        else:
            places.pop(store.name, None)
    failed = SourceUnavailable(" ".join(unavailable)) if unavailable else None
    return claimed, json.dumps(places) if places else "", failed
