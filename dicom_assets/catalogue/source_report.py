"""What is wrong with one source, gathered for one page: books, errors, and what its data say between them.

Belongs here: counting for one source what somebody may see of it. Does not belong here: what kinds of findings there
are (`kinds_of_findings`), errors by reason (`error_list`), the pages (`report_pages`).

Everything is a count, a code, a keyword or the name of a device: what somebody sends on names no patient, no object and
no place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicom_assets.batch.books import Status
from dicom_assets.catalogue.error_list import Narrowing, Reason, by_code
from dicom_assets.catalogue.kinds_of_findings import BANDS, KINDS, TABLES, FindingKind, band, counts
from dicom_assets.catalogue.matters import matters
from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.curation.tag_profile import lagging
from dicom_assets.lake.quoting import quoted
from dicom_assets.lake.tag_drift import TAG_DRIFT
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Scope, Snapshot

DRIFT = "tag_profile_part"
BESIDE = (*TABLES, DRIFT, "batches")
"""Tables that a report asks beside those of DICOMweb."""

PER_PAGE = 100
MOST_DEVICES, MOST_ELEMENTS = 30, 12
"""Devices of a report whose headers have changed, and elements that are named of each."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the books of one source say. counts: of the objects of its closed batches. others: batches by status.

    newest, closed_at: the batch that was closed last, None where none is. waiting: what waits for a person.
    """

    batches: int
    seen: int
    ingested: int
    quarantined: int
    ignored: int
    deleted: int
    newest: str | None
    closed_at: datetime | None
    others: Mapping[str, int]
    waiting: int

    @property
    def accounted(self) -> int:
        """What has an outcome; equals `seen`."""
        return self.ingested + self.quarantined + self.ignored + self.deleted


@dataclass(frozen=True, slots=True)
class Count:
    """Findings with one value. units: what the kind counts. studies: that they are in. objects: lines."""

    value: str
    units: int
    studies: int
    lines: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is of one kind. counts: None where the lake has no such table."""

    kind: FindingKind
    counts: Sequence[Count] | None


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed in the headers of a device. counts: of elements by change. elements: some of them, with what."""

    device: str
    axis: str
    before: str
    after: str
    objects_before: int
    objects_after: int
    counts: Sequence[tuple[str, int]]
    elements: Sequence[tuple[str, str]]
    total: int


@dataclass(frozen=True, slots=True)
class Report:
    """One source. geometry, risk: rows with totals, None where the lake has no such table. lag: of its closed batches.

    drift: None where the lake has no such table; drifted: how many devices have changed.
    """

    source: str
    books: Books
    reasons: Sequence[Reason]
    findings: Mapping[str, Findings]
    geometry: Row | None
    risk: Row | None
    drift: Sequence[Drift] | None
    drifted: int
    lag: int


def sources(books: SeenBooks, snapshot: Snapshot) -> list[Row]:
    """The sources of which something is known, with batches, errors and studies. snapshot: as the caller may see it."""
    with books.batches("ingestion_errors") as connection:
        found = {one["source"]: one for one in rows(connection, _OF_BOOKS)}
    study = snapshot.scan("study", columns=["source"])
    with snapshot.cursor() as connection:
        held = dict(connection.execute(f"SELECT source, count(*) FROM {study} GROUP BY source").fetchall())
    nothing = {"batches": 0, "errors": 0, "closed_at": None}
    return [
        {**nothing, **found.get(name, {}), "source": name, "studies": held.get(name, 0)}
        for name in sorted({*found, *held})
    ]


_OF_BOOKS = """
-- one row per source
SELECT source, count(*) AS batches, max(closed_at) AS closed_at, coalesce(sum(errors), 0)::BIGINT AS errors
FROM seen_batch LEFT JOIN (
    SELECT batch_id, count(*) AS errors FROM ingestion_errors WHERE severity = 'error' GROUP BY batch_id
) USING (batch_id)
GROUP BY source
"""


def require(source: str, books: SeenBooks, snapshot: Snapshot) -> None:
    """Raises Refusal (404) for a source that does not exist or may not be seen, which nothing tells apart."""
    if source not in snapshot.seen:
        with books.batches() as connection:
            if not rows(connection, "SELECT 1 FROM seen_batch WHERE source = $1 LIMIT 1", [source]):
                raise not_found("source")


def report(books: SeenBooks, snapshot: Snapshot, source: str) -> Report:
    """Everything on the page of a source.

    snapshot: with BESIDE, as the caller may see it, without a condition. Raises Refusal (404), LakeError, Stopped.
    """
    require(source, books, snapshot)
    own = snapshot.within(Scope((source,)))
    drift: Sequence[Drift] | None = None
    drifted = 0
    if DRIFT in snapshot.extents:
        drift, drifted = books.kept.answer((DRIFT, source), snapshot.versions(DRIFT), lambda: _drift(own))
    behind = books.kept.answer(("behind",), snapshot.versions("batches", DRIFT), lambda: lagging(books.lake))
    kept, found, lag = _kept(books.of(source), source, behind)
    return Report(
        source,
        kept,
        found,
        _findings(snapshot, source),
        _totals(own, "series_geometry", _GEOMETRY),
        _totals(own, "phi_risk", _RISK),
        drift,
        drifted,
        lag,
    )


def _kept(books: SeenBooks, source: str, behind: Sequence[str]) -> tuple[Books, list[Reason], int]:
    """What the books of a source say, its errors, and how many of its closed batches are among those behind."""
    with books.errors() as connection:
        found = rows(connection, _BY_STATUS, [behind])
        errors = by_code(connection, Narrowing(source=source))
        waiting = sum(one.source == source for one in matters(books, connection=connection))
    lag = sum(one.pop("behind") for one in found)
    others = {one.pop("status"): one for one in found}
    closed = others.pop(Status.CLOSED, _NONE_CLOSED)
    kept = Books(**closed, others={status: one["batches"] for status, one in others.items()}, waiting=waiting)
    return kept, errors, lag


_OBJECTS = ("seen", "ingested", "quarantined", "ignored", "deleted")
_NONE_CLOSED: Row = {"batches": 0, **dict.fromkeys(_OBJECTS, 0), "newest": None, "closed_at": None}

_BY_STATUS = f"""
SELECT
    status, count(*) AS batches, {", ".join(f"coalesce(sum({one}), 0)::BIGINT AS {one}" for one in _OBJECTS)},
    arg_max(batch_id, closed_at) AS newest, max(closed_at) AS closed_at,
    count(*) FILTER (list_contains($1::VARCHAR[], batch_id)) AS behind
FROM seen_batch GROUP BY status ORDER BY status
"""


def _placed(sql: str, snapshot: Snapshot, source: str, table: str) -> str:
    """SQL of `kinds_of_findings` for one source, with what stands in its places."""
    own = snapshot.within(Scope((source,)))
    seen = _seen_conflicts(snapshot) if table == "conflict" else snapshot.scan(table)
    study = own.scan("study", columns=["study_key", "StudyInstanceUID"])
    return sql.format(table=seen, of=own.scan(table), study=study, source=quoted(source))


def _seen_conflicts(snapshot: Snapshot) -> str:
    """SQL for the conflicts that may be seen: those of which every study may be."""
    conflicts = snapshot.within(Scope()).scan("conflict")
    if snapshot.scope == Scope():
        return conflicts
    visible = snapshot.scan("study", columns=["study_key"])
    keys = f"(SELECT conflict_key, unnest(study_keys) AS study_key FROM {conflicts})"
    hidden = f"(SELECT conflict_key FROM {keys} ANTI JOIN {visible} USING (study_key))"
    return f"(SELECT * FROM {conflicts} ANTI JOIN {hidden} USING (conflict_key))"


def _findings(snapshot: Snapshot, source: str) -> dict[str, Findings]:
    """What there is of each kind, by its name."""
    found: dict[str, list[Count]] = {name: [] for name in KINDS}
    with snapshot.cursor() as connection:
        for table in TABLES:
            if table in snapshot.extents and snapshot.extents[table].rows.any():
                for one in rows(connection, _placed(counts(table), snapshot, source, table)):
                    found[one.pop("kind")].append(Count(**one))
    known = {one.value: one for one in found["risk"]}
    found["risk"] = [known.get(name, Count(name, 0, 0, 0)) for name in map(band, BANDS)]
    return {
        name: Findings(kind, found[name] if kind.table in snapshot.extents else None) for name, kind in KINDS.items()
    }


def _totals(own: Snapshot, table: str, sql: str) -> Row | None:
    if table not in own.extents:
        return None
    with own.cursor() as connection:
        return rows(connection, sql.format(table=own.scan(table)))[0]


_GEOMETRY = """
SELECT
    count(*) AS series, count(is_regular_volume) AS judged, count(*) FILTER (is_regular_volume) AS regular,
    count(*) FILTER (len(shortfalls) > 0) AS short, coalesce(sum(missing_slices), 0)::BIGINT AS missing_slices
FROM {table}
"""

_RISK = """
SELECT
    count(*) AS series, count(*) FILTER (claims > 0) AS claims, count(*) FILTER (contradictions > 0) AS contradicted,
    count(*) FILTER (private_elements > 0) AS private,
    coalesce(sum(claims), 0)::BIGINT AS objects, coalesce(sum(contradictions), 0)::BIGINT AS contradictions
FROM {table}
"""


def _drift(own: Snapshot) -> tuple[list[Drift], int]:
    """What changed in headers, device by device, the newest change first; and how many devices changed."""
    with own.cursor() as connection:
        connection.execute(f"CREATE TEMP VIEW tag_profile_part AS SELECT * FROM {own.scan(DRIFT)}")
        devices = connection.execute(_DEVICES).fetchall()
        if not any(may_differ for *_, may_differ in devices):
            return [], 0  # known in less time than it takes to plan the comparison
        found = rows(connection, _DRIFT)
    ages = {tuple(device): age for *device, age, _ in devices}
    found.sort(key=lambda one: ages[one["Manufacturer"], one["ManufacturerModelName"], one["Modality"]])
    by_device: dict[tuple[str, str, str, str], list[Row]] = {}
    for one in found:
        by_device.setdefault((one["device"], one["axis"], one["before"], one["after"]), []).append(one)
    made = []
    for (device, axis, before, after), changed in [*by_device.items()][:MOST_DEVICES]:
        counts: dict[str, int] = {}
        for one in changed:
            counts[one["change"]] = counts.get(one["change"], 0) + 1
        made.append(
            Drift(
                device,
                axis,
                before,
                after,
                changed[0]["objects_before"],
                changed[0]["objects_after"],
                sorted(counts.items(), key=lambda one: (-one[1], one[0])),
                [(one["change"], one["keyword"] or one["path"]) for one in changed[:MOST_ELEMENTS]],
                len(changed),
            )
        )
    return made, len(by_device)


_DEVICES = """
-- every device: its place by when it was seen last, and whether there are two sides of it that may differ
SELECT
    Manufacturer, ManufacturerModelName, Modality, rank() OVER (ORDER BY max(claimed_at) DESC NULLS LAST) AS age,
    count(DISTINCT SoftwareVersions) > 1 OR count(DISTINCT date_trunc('month', claimed_at)) > 1 AS may_differ
FROM tag_profile_part GROUP BY ALL
"""

_DRIFT = f"""
-- one row per element that changed
SELECT
    coalesce(nullif(concat_ws(' ', Manufacturer, ManufacturerModelName), ''), 'no device named')
        || coalesce(', ' || Modality, '')
        || CASE WHEN axis = 'month' THEN coalesce(', software ' || SoftwareVersions, '') ELSE '' END AS device,
    axis, coalesce(before, 'none named') AS before, coalesce(after, 'none named') AS after, change, keyword, path,
    objects_before, objects_after, Manufacturer, ManufacturerModelName, Modality
FROM ({TAG_DRIFT})
ORDER BY device, axis DESC, change, keyword NULLS LAST, path
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """Some lines of one kind and value. total: how many there are."""

    kind: FindingKind
    rows: Sequence[Row]
    total: int


def listed(books: SeenBooks, snapshot: Snapshot, source: str, kind: FindingKind, value: str, page: int) -> Listed:
    """The lines behind a count. page: from 1. Raises Refusal (404), LakeError, Stopped."""
    require(source, books, snapshot)
    if kind.table not in snapshot.extents:
        return Listed(kind, [], 0)
    lines = f"({_placed(kind.lines, snapshot, source, kind.table)})"
    with snapshot.cursor() as connection:
        ((total,),) = connection.execute(f"SELECT count(*) FROM {lines} WHERE value = $1", [value]).fetchall()
        found = rows(
            connection,
            f"SELECT * FROM {lines} WHERE value = $1 ORDER BY unit, StudyInstanceUID, SeriesInstanceUID, "
            f"SOPInstanceUID, detail LIMIT {PER_PAGE} OFFSET {(page - 1) * PER_PAGE}",
            [value],
        )
    return Listed(kind, found, total)
