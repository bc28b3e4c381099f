"""What waits for a person, each with the command that ends it: the same that `dicom-assets status` and alerts tell of.

Belongs here: putting it together, the most pressing first. Does not belong here: when something waits (`batch.waits`,
`landing.looks`, `landing.returns`, `lake.form`), batches that run or are closed (`batch_list`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from dicom_assets.batch.books import Status
from dicom_assets.batch.migrations import MIGRATIONS
from dicom_assets.batch.selftest import diary
from dicom_assets.batch.waits import Command, commands
from dicom_assets.catalogue.row_reading import rows
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.lake import form
from dicom_assets.lake.quoting import one_of
from dicom_assets.landing.looks import CONFIRM, counts
from dicom_assets.monitoring.numbers import CLAIMED
from dicom_assets.storage.files import LakeFiles

OPEN_TOO_LONG = timedelta(hours=1)
"""A batch that is open longer is told of: its run may have been stopped. Shorter ones are at work."""

TAKE_LANDING = ("ingest", "batch retry", "batch accept", "source confirm", "selftest", "cohort verify",
                "cohort export")  # fmt: skip
"""Commands that read sources, so that they have the option --landing; a test compares it with the command line."""


@dataclass(frozen=True, slots=True)
class Matter:
    """One thing that waits.

    about: in a sentence. why: in another, "" where the first says all. batch_id: of the batch that it is about, None
    for what is of none. since: from when on it is so, where that is known.
    """

    kind: str
    about: str
    commands: Sequence[Command]
    why: str = ""
    source: str = ""
    batch_id: str | None = None
    since: datetime | None = None


def matters(
    books: SeenBooks, now: datetime | None = None, *, connection: duckdb.DuckDBPyConnection | None = None
) -> list[Matter]:
    """What waits, as far as it may be seen: what a person must decide first, what goes on by itself last.

    connection: of `books.batches`, with `ingestion_errors`, for whoever has one. Raises LakeError.
    """
    moment = now or datetime.now(UTC)
    with nullcontext(connection) if connection is not None else books.batches("ingestion_errors") as asked:
        waiting = rows(asked, _WAITING, [moment, moment - OPEN_TOO_LONG])
        of_status = {status: [one for one in waiting if one["status"] == status] for status in (CLAIMED, Status.OPEN)}
        stopped = [one for one in waiting if one["status"] not in of_status]
        told = rows(asked, _SINCE, [[one["batch_id"] for one in stopped]]) if stopped else []
    since = {one["batch_id"]: one["since"] for one in told}
    found = [
        *(_stopped(one | {"since": since.get(one["batch_id"])}) for one in stopped),
        *_emptied(books),
        *_migrations(books),
        *(_unbegun(one) for one in of_status[CLAIMED]),
        *(_stale(one) for one in of_status[Status.OPEN]),
        *_unread(books),
        *_unlisted(books),
    ]
    return [*found, *_selftests(books.lake.files)] if books.is_whole else found


_WAITING = f"""
-- one row per batch that has stopped, and per source with batches that nobody has begun, or that are open for long
SELECT
    status, source, count(*) AS batches, sum(seen)::BIGINT AS objects, min(batch_id) AS batch_id,
    any_value(reason) AS reason, min(coalesce(started_at, claimed_at)) AS since
FROM seen_batch
WHERE status IN ({one_of([Status.PAUSED, Status.FAILED])})
    OR (status = '{CLAIMED}' AND coalesce(started_at, claimed_at) <= $1)
    OR (status = '{Status.OPEN}' AND coalesce(started_at, claimed_at) <= $2)
GROUP BY status, source, CASE WHEN status NOT IN ('{CLAIMED}', '{Status.OPEN}') THEN batch_id END
ORDER BY CASE WHEN status IN ('{CLAIMED}', '{Status.OPEN}') THEN source ELSE min(seen_batch.batch_id) END
"""

_SINCE = """
-- since when batches have stopped
SELECT batch_id, max(occurred_at) AS since FROM ingestion_errors
WHERE list_contains($1, batch_id) AND object_id = '' AND stage <> 'rule'
GROUP BY batch_id
"""


def _stopped(row: Mapping[str, Any]) -> Matter:
    batch_id, status = row["batch_id"], row["status"]
    return Matter(
        status,
        f"A batch of source {row['source']} is {status}, with {_objects(row['objects'])}.",
        commands(batch_id, status, row["reason"]),
        row["reason"] or "",
        row["source"],
        batch_id,
        row["since"],
    )


def _emptied(books: SeenBooks) -> Iterator[Matter]:
    looks = books.looks
    for source in filter(books.shows, looks.sources()):
        memory = looks.memory(source)
        if memory.believed is None or memory.doubted is None:
            continue
        yield Matter(
            "emptied",
            f"Source {source} looks emptied: {counts(memory.believed, memory.doubted)}.",
            [Command(f"{CONFIRM} {source}", "takes what is there now as what is to be there, if it is")],
            "Nothing of it is called gone; its open batches wait. See that it is mounted, and as full as it should be.",
            source,
            since=_utc(memory.doubted.at),
        )


def _migrations(books: SeenBooks) -> Iterator[Matter]:
    left = form.entering(form.read(books.lake.files) or books.lake.form).left
    if left and books.is_whole:
        yield Matter(
            "upgrade",
            "The lake is of an earlier release. Nothing is added to it before it is brought up to date.",
            [
                Command("dicom-assets upgrade --plan", "says what would change"),
                Command("dicom-assets upgrade", "brings it up to date"),
            ],
            "; ".join(MIGRATIONS[name].text for name in left if name in MIGRATIONS),
        )


def _unbegun(row: Mapping[str, Any]) -> Matter:
    return Matter(
        CLAIMED,
        f"{_batches(row['batches'])} of source {row['source']}, with {_objects(row['objects'])}: claimed, not begun.",
        [Command("dicom-assets ingest", "runs every batch that is open")],
        "Where Dagster's daemon runs, it begins them; nothing does where it does not.",
        row["source"],
        row["batch_id"] if row["batches"] == 1 else None,
        row["since"],
    )


def _stale(row: Mapping[str, Any]) -> Matter:
    return Matter(
        Status.OPEN,
        f"{_batches(row['batches'])} of source {row['source']} begun more than an hour ago and not closed.",
        [Command("dicom-assets ingest", "runs every batch that is open and whose run has ended")],
        "The run goes on, or it was stopped.",
        row["source"],
        row["batch_id"] if row["batches"] == 1 else None,
        row["since"],
    )


def _unread(books: SeenBooks) -> Iterator[Matter]:
    for one in books.unread():
        codes = ", ".join(f"{code} {count}" for code, count in sorted(one.codes.items()))
        yield Matter(
            "unread",
            f"{_objects(one.objects)} of source {one.source} could not be read, and are read again by themselves.",
            [Command("dicom-assets ingest", "reads them again now")],
            f"{codes}. The next attempt is at {one.next_at:%Y-%m-%d %H:%M} UTC.",
            one.source,
        )


def _unlisted(books: SeenBooks) -> Iterator[Matter]:
    looks = books.looks
    for source in looks.sources():
        unread = looks.memory(source).unread if books.shows(source) else 0
        if unread:
            yield Matter(
                "unlisted",
                f"{unread:,} folders of source {source} cannot be listed and were passed over.",
                [Command("dicom-assets errors", "says which code, and what to do")],
                source=source,
            )


def _selftests(files: LakeFiles) -> Iterator[Matter]:
    for one in diary.entries(files):
        if one.cleaned_at is None:
            yield Matter(
                "selftest",
                "A self-test is under way, or was broken off.",
                [Command("dicom-assets selftest --clean", "takes out what it left")],
                source=one.source,
                since=_utc(one.begun_at),
            )


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _objects(count: int) -> str:
    return f"{count:,} object{'' if count == 1 else 's'}"


def _batches(count: int) -> str:
    return f"{count:,} batch{'' if count == 1 else 'es'}"


def complete(command: str, given: Mapping[str, str]) -> str:
    """A command as it is to be run beside this server: with the places that were given to the server by option.

    given: places by option, see `Settings.given`.
    """
    words = command.removeprefix("dicom-assets ")
    takes = [name for name in given if name != "--landing" or words.startswith(TAKE_LANDING)]
    more = [f"{name} {shlex.quote(_whole(given[name]))}" for name in takes]
    return " ".join([command, *more])


def _whole(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())
