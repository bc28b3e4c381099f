"""The numbers of a lake, read from what is written already: books, claims, looks, the logs of the tables.

Belongs here: finding them, cheaply however large the lake is. Does not belong here: what they mean (`families`), how
they are written (`exposition`), what storage queues and DICOM services say (`feeds`).

Nothing here reads a row for each object but the reason codes of the ledger, three columns of it; a file of a table
never changes, so whoever measures again and again reads each file once. The sizes of what is current come from
`study`, which has a row for some hundred objects.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicom_assets.batch.books import Status
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, scan
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.landing.looks import Looks
from dicom_assets.monitoring import exposition
from dicom_assets.monitoring.feeds import Feeds
from dicom_assets.schema.codes import Outcome
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings

CLAIMED = "claimed"
"""Status of a batch that no run has begun."""

UNCLAIMED, UNREAD = "unclaimed", "unread"
"""What waits without a batch: not claimed yet, or given back by its batch to be read again."""


@dataclass
class Samples:
    """Values of families by the values of their labels; see `exposition.Samples`."""

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=lambda: defaultdict(dict))

    def set(self, name: str, value: float, *labels: str) -> None:
        """Enters a sample."""
        self.values[name][labels] = value

    def add(self, name: str, value: float, *labels: str) -> None:
        """Adds to a sample."""
        self.values[name][labels] = self.values[name].get(labels, 0) + value

    def oldest(self, since: datetime, now: datetime, *labels: str) -> None:
        """Enters since when something waits, where nothing waits longer."""
        known = self.values["oldest_waiting_seconds"].get(labels, 0.0)
        self.set("oldest_waiting_seconds", max(known, (now - since).total_seconds(), 0.0), *labels)


@dataclass
class Meter:
    """Measures one lake again and again. log: its claims, as they were last read. codes: by file of the ledger."""

    lake: Lake
    settings: Settings
    log: ClaimLog = field(init=False)
    feeds: Feeds = field(init=False)
    codes: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    current: tuple[int, list[tuple[str, int, int, int, int]]] = (-1, [])

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        self.log = ClaimLog(self.lake.files)
        self.feeds = Feeds(self.settings)

    def measure(self, now: datetime | None = None) -> exposition.Samples:
        """All numbers of the lake, of its queues and of its services. Raises LakeError."""
        began, moment, samples = time.perf_counter(), now or datetime.now(UTC), Samples()
        with self.lake.look_once(TABLES):
            self._tables(samples)
            sources = self._batches(samples, moment)
            self._codes(samples, sources)
            self._current(samples)
        self._looks(samples, moment)
        samples.set("unmeasured", 0, "lake")
        self.feeds.measure(samples, moment)
        samples.set("measured_timestamp_seconds", moment.timestamp())
        samples.set("measuring_seconds", time.perf_counter() - began)
        return samples.values

    def waits(self, now: datetime) -> Mapping[tuple[str, ...], float]:
        """Since when the oldest of what waits does, in seconds, by source and what it waits for. Raises LakeError."""
        samples = Samples()
        with self.lake.look_once(["batches"]):
            self._batches(samples, now)
        self._looks(samples, now)
        return samples.values["oldest_waiting_seconds"]

    def _tables(self, samples: Samples) -> None:
        for name in TABLES:
            with suppress(NoSuchVersion):  # a lake of an earlier release has fewer
                now = self.lake.extents(name)
                samples.set("table_rows", int(now.rows.sum()), name)
                samples.set("table_files", len(now), name)
                samples.set("table_bytes", int(now.bytes.sum()), name)
                samples.set("table_version", now.version, name)

    def _batches(self, samples: Samples, now: datetime) -> Mapping[str, str]:
        """Enters what books and claims say; the source of each batch."""
        with connect(self.lake, ["batches"]) as connection:
            books = connection.execute(_BOOKS).fetchall()
            steps = connection.execute(_STEPS).fetchall()
            status = dict(connection.execute("SELECT batch_id, status FROM batches").fetchall())
        for source, state, batches, unaccounted, clinical, closed_at, *counts in books:
            samples.set("batches", batches, source, state)
            samples.add("clinical_rows", clinical, source)
            for outcome, count in zip(Outcome, counts, strict=True):
                samples.add("objects", count, source, str(outcome))
            if state == Status.CLOSED:
                samples.set("unaccounted_objects", unaccounted, source)
                samples.set("last_closed_timestamp_seconds", closed_at.timestamp(), source)
        for source, step, seconds in steps:
            samples.set("step_seconds", seconds, source, step)
        claims = self.log.claims()
        for source in {claim.source for claim in claims} | {source.name for source in self.settings.sources}:
            for state in (CLAIMED, *Status):
                samples.add("batches", 0, source, state)
        for claim in claims:
            state = status.get(claim.batch_id, CLAIMED)
            if state == CLAIMED:
                samples.add("batches", 1, claim.source, CLAIMED)
            if state != Status.CLOSED:
                samples.add("waiting_objects", claim.objects, claim.source, state)
                samples.oldest(claim.claimed_at, now, claim.source, state)
        return {claim.batch_id: claim.source for claim in claims}

    def _codes(self, samples: Samples, sources: Mapping[str, str]) -> None:
        """Enters why objects are kept out, from the files of the ledger that were not read before."""
        now = self.lake.extents("validated_batch").paths.tolist()
        fresh = [path for path in now if path not in self.codes]
        found: dict[str, list[tuple[str, str, int]]] = {path: [] for path in fresh}
        for path, batch_id, code, count in self._read_codes(fresh):
            found[path].append((batch_id, code, count))
        self.codes = {path: self.codes.get(path) or found.get(path, []) for path in now}
        for batch_id, code, count in (row for rows in self.codes.values() for row in rows):
            samples.add("quarantined_objects", count, sources.get(batch_id, ""), code)

    def _read_codes(self, paths: list[str]) -> Iterator[tuple[str, str, str, int]]:
        if not paths:
            return
        by_name = {path.rsplit("/", 1)[-1]: path for path in paths}
        with self.lake.cursor() as connection:
            rows = connection.execute(
                f"""
                SELECT parse_filename(filename), batch_id, code, count(*)
                FROM {scan(self.lake, "validated_batch", paths=paths, filename=True)}
                WHERE outcome = '{Outcome.QUARANTINED}'
                GROUP BY ALL
                """
            ).fetchall()
        for file, batch_id, code, count in rows:
            yield by_name[file], batch_id, code, count

    def _current(self, samples: Samples) -> None:
        """Enters the sizes of what is current; asked again when `study` has another version."""
        version = self.lake.extents("study").version
        if self.current[0] != version:
            with connect(self.lake, ["study"]) as connection:
                self.current = version, connection.execute(_CURRENT).fetchall()
        for source, *counts in self.current[1]:
            for name, count in zip(("studies", "series", "instances", "bytes"), counts, strict=True):
                samples.set(f"current_{name}", count, source)

    def _looks(self, samples: Samples, now: datetime) -> None:
        """Enters what the last looks at the sources found, and what waits without a batch."""
        looks = Looks(self.lake.files)
        for source in looks.sources():
            memory = looks.memory(source)
            samples.set("source_emptied", memory.doubted is not None, source)
            if (look := memory.doubted or memory.believed) is not None:
                samples.set("source_objects", look.objects, source)
            if memory.left is not None:
                samples.set("waiting_objects", memory.left.objects, source, UNCLAIMED)
                samples.oldest(datetime.fromisoformat(memory.left.since), now, source, UNCLAIMED)
        returned = self.log.returned()
        rows = returned.filter(returned["waits"]).select(["source", "returned_at"]).to_pylist()
        for row in rows:
            samples.add("waiting_objects", 1, row["source"], UNREAD)
            samples.oldest(row["returned_at"], now, row["source"], UNREAD)


_BOOKS = f"""
-- one row per source and status
SELECT
    source, status, count(*),
    sum(seen - ingested - quarantined - ignored - deleted), sum(coalesce(clinical_rows, 0)), max(closed_at),
    {", ".join(f"sum({outcome})" for outcome in Outcome)}
FROM batches
GROUP BY ALL
"""

_STEPS = """
-- one row per source and step
SELECT source, step.key, sum(step.value::DOUBLE)
FROM batches, json_each(step_seconds) AS step
WHERE status = 'closed' AND step_seconds IS NOT NULL
GROUP BY ALL
"""

_CURRENT = """
-- one row per source, with the data partition of a service
SELECT source, count(*), sum(series_count), sum(instance_count), sum(coalesce(size, 0))
FROM study
GROUP BY ALL
"""


def seen_by(
    samples: exposition.Samples, labels: Mapping[str, tuple[str, ...]], sources: Iterable[str]
) -> exposition.Samples:
    """What of the numbers is about some sources alone: families without a source are left out.

    labels: names of the labels by family. sources: names; `name/*` stands for each data partition of a service, and
    for the service.
    """
    allowed = {*sources}
    narrowed: dict[str, dict[tuple[str, ...], float]] = {}
    for name, values in samples.items():
        if "source" in labels[name]:
            at = labels[name].index("source")
            narrowed[name] = {key: value for key, value in values.items() if is_among(key[at], allowed)}
    return narrowed


def is_among(source: str, allowed: Container[str]) -> bool:
    """Whether a source, as books and looks name it, is one of those that somebody may see; see `seen_by`."""
    return source in allowed or f"{source.partition('/')[0]}/*" in allowed
