"""What is worth telling somebody: batches that wait for a person, sources that look emptied, what waits too long.

Belongs here: deciding it, from the state of the lake and not from events, so that nothing is missed while nobody
listened and nothing is told twice because it happened twice. Does not belong here: what was told already (`outbox`),
how it is said (`messages`) and sent (`receivers`).

What is told holds the id of a batch, names of sources, reason codes with their counts and sentences of ours; nothing
that names an object's place or a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from dicom_assets.alert_settings import AlertSettings, Occasion
from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.presence import doubts
from dicom_assets.batch.waits import commands, is_waiting, rule_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.landing.looks import Looks
from dicom_assets.monitoring.numbers import Meter
from dicom_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class Told:
    """One thing to tell.

    key: names it as long as it lasts: the same key is told once. about: the first sentence. source: "" for what is of
    no source. since: from when on it is so, where that is known. reason: why, in a sentence of ours. codes: objects of
    the batch by reason code. commands: what shows more or ends it, the first one first. run_id: of Dagster.
    """

    kind: Occasion
    key: str
    about: str
    source: str = ""
    batch_id: str | None = None
    since: datetime | None = None
    reason: str | None = None
    codes: Mapping[str, int] = field(default_factory=dict)
    commands: Sequence[str] = ()
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A lake as far as somebody is told of it.

    books: of batches that are not closed. closed_at: when the last batch of each source closed. waits: since when what
    waits does, in seconds. doubts: what is doubtful about sources, in a sentence.
    """

    at: datetime
    books: Sequence[Books]
    closed_at: Mapping[str, datetime]
    waits: Mapping[tuple[str, ...], float]
    doubts: Mapping[str, str]


def look(lake: Lake, settings: Settings, now: datetime | None = None) -> State:
    """The state of a lake now. Raises LakeError."""
    moment, looks = now or datetime.now(UTC), Looks(lake.files)
    waits = Meter(lake, settings).waits(moment)
    with connect(lake, ["batches"]) as connection:
        unclosed = arrow(connection, "SELECT * FROM batches WHERE status <> 'closed' ORDER BY batch_id").to_pylist()
        closed_at = connection.execute(
            "SELECT source, max(closed_at) FROM batches WHERE status = 'closed' GROUP BY ALL ORDER BY 1"
        ).fetchall()
    return State(moment, [Books(**row) for row in unclosed], dict(closed_at), waits, doubts(looks, looks.sources()))


def due(state: State, alert: AlertSettings) -> Iterator[Told]:
    """What of a state a receiver is to be told of, the oldest batch first; without counts, see `with_codes`."""
    every = (*_batches(state), *_emptied(state), *_stale(state, alert), *_silent(state, alert))
    for one in every:
        if concerns(one, alert):
            yield one


def concerns(told: Told, alert: AlertSettings) -> bool:
    """Whether a receiver is to be told of something."""
    return told.kind in alert.on and (alert.sources is None or told.source in alert.sources)


def _batches(state: State) -> Iterator[Told]:
    for books in state.books:
        if is_waiting(books):
            rule = rule_of(books.reason)
            yield Told(
                Occasion(books.status),
                ".".join(filter(None, ("batch", books.batch_id, books.status, rule))),
                f"Batch {books.batch_id} of source {books.source} is {books.status}.",
                books.source,
                books.batch_id,
                reason=books.reason,
                commands=[one.text for one in commands(books.batch_id, books.status, books.reason)],
                run_id=books.run_id,
            )


def _emptied(state: State) -> Iterator[Told]:
    for source, sentence in state.doubts.items():
        yield Told(
            Occasion.SOURCE_EMPTIED,
            f"source.{source}.{Occasion.SOURCE_EMPTIED}",
            f"Source {source} looks emptied.",
            source,
            reason=sentence,
            commands=["dicom-assets status", f"dicom-assets source confirm {source}"],
        )


def _stale(state: State, alert: AlertSettings) -> Iterator[Told]:
    for (source, waiting), seconds in sorted(state.waits.items()):
        if waiting not in (Status.PAUSED, Status.FAILED) and seconds > alert.waiting_minutes * 60:
            yield Told(
                Occasion.STALE,
                f"source.{source}.{Occasion.STALE}.{waiting}",
                f"Objects of source {source} wait for {seconds / 60:.0f} minutes ({waiting}).",
                source,
                since=state.at - timedelta(seconds=seconds),
                reason=_WAITING[waiting],
                commands=["dicom-assets status"],
            )


_WAITING = {
    "unclaimed": "They were seen and are not claimed: they change again and again, or nobody looks any more.",
    "claimed": "They are claimed and no run has begun: see that Dagster's daemon runs, and how long its queue is.",
    "open": "Their batch was begun and has not closed: its run goes on, or it was stopped.",
    "unread": "They could not be read, and are read again and again.",
}
"""What it means that objects wait, by what they wait for."""


def _silent(state: State, alert: AlertSettings) -> Iterator[Told]:
    if alert.silent_hours is None:
        return
    for source, moment in state.closed_at.items():
        if state.at - moment > timedelta(hours=alert.silent_hours):
            yield Told(
                Occasion.SILENT,
                f"source.{source}.{Occasion.SILENT}",
                f"No batch of source {source} has closed since {moment:%Y-%m-%dT%H:%M}Z.",
                source,
                since=moment,
                reason="Nothing arrives, or nothing of what arrives is taken.",
                commands=["dicom-assets status"],
            )


def failed_run(what: str, run_id: str, day: datetime) -> Told:
    """A run that failed and is no batch's. what: its job, or what it was to make. day: when, in UTC."""
    return Told(
        Occasion.RUN_FAILED,
        f"run.{day:%Y%m%d}.{run_id}",
        f"A run of {what} failed.",
        since=day,
        reason="See its log in Dagster.",
        run_id=run_id,
    )


def codes_of(lake: Lake, batch_id: str) -> Mapping[str, int]:
    """Objects of a batch by reason code, the most frequent first, as far as its ledger is written. Raises LakeError."""
    with connect(lake, ["validated_batch"], within={"validated_batch": {"batch_id": [batch_id]}}) as connection:
        found = connection.execute(
            "SELECT code, count(*) FROM validated_batch WHERE code IS NOT NULL GROUP BY ALL ORDER BY 2 DESC, 1"
        ).fetchall()
    return dict(found)
