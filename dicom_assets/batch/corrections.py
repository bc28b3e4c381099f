"""Publishing corrections and patient links: which are in force, and which studies that changes.

Belongs here: the decisions over all rows of `correction`, and what a batch that brings or takes away corrections
touches. Does not belong here: reading files of corrections (`clinical.correction_reader`), what a correction makes of
an object (`lake.corrected_objects`), the hierarchy.

Which corrections are in force follows from those that there are, and from no order of arrival, but for the order in
which one file changed: of the versions of one file only the one that was claimed last counts. Corrections are taken in
the order in which they were said (`corrected_at`). One that says something else of the same key than those before it is
contradicted, and so are all of one time that contradict each other; a link that leads back to where it begins is
cyclic. The others stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from dicom_assets.batch.publish import Before, claims_again
from dicom_assets.lake import moved_studies, overwritten, studies
from dicom_assets.lake.corrected_objects import KEYS, OBJECT_COLUMNS
from dicom_assets.lake.corrected_objects import moves as moves_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.correction_tables import Scope, State
from dicom_assets.schema.registry import BATCH_STUDY, CORRECTION, OVERWRITTEN, PATIENT_LINK

Row = Mapping[str, Any]

ERRORS_FILE = 999_997
"""Number of the staged file that holds errors of corrections that are not in force."""

_CODES = {State.CONTRADICTED: "CORRECTION_CONTRADICTED", State.CYCLIC: "PATIENT_LINK_CYCLE"}

_SAID = (("PatientID", "IssuerOfPatientID"), ("AccessionNumber",), ("StudyInstanceUID",))
"""What a correction may say, by what belongs together."""

_ABOUT = itemgetter("scope", "object_source", "key", "key_issuer")


def publish_corrections(lake: Lake, staging: Staging, run_id: str, before: Callable[[], Before] = dict) -> int:
    """Publishes what a batch brings of corrections, and decides anew which are in force; how many rows the batch has.

    before: asked for the uris that earlier batches had claimed. The studies that this changes are staged as touched and
    entered in the indexes before anything is published. No metadata is published meanwhile: what arrives behind it
    finds the corrections, what arrived before it is found here. Raises StagingMissing, LakeError.
    """
    staged = staging.read_whole(Part.CORRECTION)
    if not len(staged) and not moved_studies.any_in(lake):
        return 0
    studies.build(lake)
    claims = claims_again(staging, before())
    with lake.committing("flat_metadata"), lake.committing(CORRECTION.name):
        if not len(staged) and not _is_concerned(lake, staging.batch_id, claims):
            return 0
        had = _rows(lake)
        rows = [row for row in had if row["batch_id"] != staging.batch_id] + staged.to_pylist()
        overwritten.enter(lake, _of_corrections(claims, rows))
        now = decide(rows, _last_claims(lake, rows))
        links, linked = resolved([row for row in now if _in_force(row)]), _links(lake)
        changed = _changed(staging.batch_id, had, now, links, linked)
        touched = _touched(lake, staging, now, changed)
        staging.put(Part.TOUCHED, 0, touched)
        staging.complete(Part.TOUCHED, len(touched))
        studies.enter(lake, staging.batch_id, touched["study_key"].to_pylist())
        _publish(lake, staging.batch_id, had, now)
        _publish_links(lake, links, linked)
    _stage_errors(lake, staging, now, run_id)
    return len(staged)


def publish_links(lake: Lake, staging: Staging) -> int:
    """Makes patient_link anew from the links in force, if the batch brings corrections; how many rows the table has.

    Raises StagingMissing, LakeError.
    """
    if staging.rows(Part.CORRECTION):
        with lake.committing(CORRECTION.name):
            _publish_links(lake, resolved([row for row in _rows(lake) if _in_force(row)]), _links(lake))
    return lake.row_count(PATIENT_LINK.name)


def _rows(lake: Lake) -> list[dict[str, Any]]:
    with connect(lake, [CORRECTION.name]) as connection:
        found = arrow(connection, f"FROM {CORRECTION.name}").select(CORRECTION.schema.names)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def _links(lake: Lake) -> list[dict[str, Any]]:
    with connect(lake, [PATIENT_LINK.name]) as connection:
        found = arrow(connection, f"FROM {PATIENT_LINK.name}").select(PATIENT_LINK.schema.names)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def _in_force(row: Row) -> bool:
    return bool(row["state"] == State.IN_FORCE)


def _of_corrections(claims: pa.Table, rows: Iterable[Row]) -> pa.Table:
    """Those claims that came to the place of a file of corrections."""
    places = {row["place_key"] for row in rows}
    return claims.filter(pa.array([key in places for key in overwritten.place_keys(claims).to_pylist()], pa.bool_()))


def _is_concerned(lake: Lake, batch_id: str, claims: pa.Table) -> bool:
    """Whether a batch that brings no corrections had some, or something was claimed in the place of a file of some."""
    with connect(lake, [CORRECTION.name]) as connection:
        had = connection.execute(f"SELECT 1 FROM {CORRECTION.name} WHERE batch_id = $1 LIMIT 1", [batch_id]).fetchall()
        files = arrow(
            connection,
            f"SELECT place_key, max(claimed_at) AS claimed_at FROM {CORRECTION.name} "
            f"WHERE state <> '{State.REPLACED}' GROUP BY place_key",
        ).to_pylist()
    last = _last_claims(lake, files)
    return bool(had) or len(_of_corrections(claims, files)) > 0 or any(_is_replaced(one, last) for one in files)


def _last_claims(lake: Lake, rows: Iterable[Row]) -> dict[str, datetime]:
    """By place, when it was claimed last, of the places of these rows that were claimed more than once."""
    within = {OVERWRITTEN.name: {"place_key": sorted({row["place_key"] for row in rows})}}
    with connect(lake, [OVERWRITTEN.name], within=within) as connection:
        return dict(connection.execute(f"SELECT place_key, claimed_at FROM {OVERWRITTEN.name}").fetchall())


def _is_replaced(row: Row, last: Mapping[str, datetime]) -> bool:
    return row["place_key"] in last and last[row["place_key"]] > row["claimed_at"]


def decide(rows: Iterable[Row], last: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """The rows with the state of each. last: by place_key, when its file was claimed last; see the module. Pure."""
    decided = [
        {**row, "state": str(State.REPLACED if _is_replaced(row, last) else State.IN_FORCE)}
        for row in sorted(rows, key=itemgetter("batch_id", "object_id", "record"))
    ]
    same: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in filter(_in_force, decided):
        same[_ABOUT(row)].append(row)
    for group in same.values():
        if len(group) > 1:
            for row in _contradicted(group):
                row["state"] = str(State.CONTRADICTED)
    for row in _cyclic([row for row in decided if _in_force(row) and row["scope"] == Scope.PATIENT_LINK]):
        row["state"] = str(State.CYCLIC)
    return decided


def _by_time(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of one time, earliest first."""
    for _, group in groupby(sorted(rows, key=itemgetter("corrected_at")), itemgetter("corrected_at")):
        yield list(group)


def _contradicted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows about the same objects or person those that contradict an earlier one, or one of the same time."""
    said: dict[tuple[str, ...], tuple[Any, ...]] = {}
    refused: list[dict[str, Any]] = []
    for group in _by_time(rows):
        sound = [row for row in group if all(said.get(names, value) == value for names, value in _values(row))]
        values: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
        for row in sound:
            for names, value in _values(row):
                values[names].add(value)
        accepted = [row for row in sound if all(len(values[names]) == 1 for names, _ in _values(row))]
        for row in accepted:
            said.update(_values(row))
        taken = {id(row) for row in accepted}
        refused += [row for row in group if id(row) not in taken]
    return refused


def _values(row: Row) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
    for names in _SAID:
        value = tuple(row[name] for name in names)
        if any(one is not None for one in value):
            yield names, value


ANY = None
"""Issuer that stands for every issuer that no link names."""

Person = tuple[str, str | None]
"""PatientID and issuer; ANY: whatever issuer that no link names, or none."""


class _Graph:
    """Links, followed from one identifier to the next."""

    def __init__(self, links: Iterable[Row]) -> None:
        self._links: dict[Person, list[Row]] = defaultdict(list)
        for link in sorted(links, key=itemgetter("corrected_at", "correction_key")):
            self._links[link["key"], link["key_issuer"]].append(link)
        self.issuers = sorted({issuer for _, issuer in self._links if issuer is not None})

    def starts(self) -> list[Person]:
        """Each identifier that a link begins at; of a link for any issuer, each issuer that another link names."""
        ids = dict.fromkeys(name for name, _ in self._links)
        own = [person for person in self._links if person[1] is not None]
        anyone = [(name, issuer) for name in ids if (name, ANY) in self._links for issuer in (ANY, *self.issuers)]
        return list(dict.fromkeys([*own, *anyone]))

    def next(self, person: Person) -> tuple[Row, Person] | None:
        """The link of an identifier and where it leads; None where none begins. Those for its issuer count first."""
        found = self._links.get(person) or self._links.get((person[0], ANY))
        if not found:
            return None
        link = found[0]  # others of the same key say the same
        issuer = link["IssuerOfPatientID"]
        return link, (link["PatientID"], person[1] if issuer is None else issuer)

    def same(self, link: Row) -> list[Row]:
        """All links that say what one says."""
        return self._links[link["key"], link["key_issuer"]]

    def walk(self, start: Person) -> tuple[list[tuple[Row, Person]], int | None]:
        """The links from an identifier on, each with where it leads, and at which of them a circle begins."""
        way: list[tuple[Row, Person]] = []
        places = {start: 0}
        step = self.next(start)
        while step is not None:
            way.append(step)
            if step[1] in places:
                return way, places[step[1]]
            places[step[1]] = len(way)
            step = self.next(step[1])
        return way, None


def _cyclic(links: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The links that lead, with earlier ones and those of their time, back to where they begin."""
    if not links:
        return []
    if all(_Graph(links).walk(start)[1] is None for start in _Graph(links).starts()):
        return []
    accepted: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for group in _by_time(links):
        while True:
            graph = _Graph([*accepted, *group])
            circles = set()
            for start in graph.starts():
                way, at = graph.walk(start)
                circles |= {id(one) for link, _ in way[at:] for one in graph.same(link)} if at is not None else set()
            cyclic = [link for link in group if id(link) in circles]
            if not cyclic:
                break
            refused += cyclic
            group = [link for link in group if id(link) not in circles]
        accepted += group
    return refused


def resolved(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows of patient_link from the corrections in force: for each identifier that links begin at, where they end."""
    graph = _Graph(row for row in rows if row["scope"] == Scope.PATIENT_LINK)
    found: list[dict[str, Any]] = []
    anyone: dict[str, tuple[list[str], Person]] = {}
    for start in sorted(graph.starts(), key=lambda person: (person[0], person[1] is not ANY, person[1] or "")):
        way, _ = graph.walk(start)
        surviving, issuer = way[-1][1]
        links = sorted({one["correction_key"] for link, _ in way for one in graph.same(link)})
        if start[1] is ANY:
            anyone[start[0]] = links, (surviving, issuer)
        elif anyone.get(start[0]) in [(links, (surviving, one)) for one in (issuer, *([ANY] * (issuer == start[1])))]:
            continue  # the row for any issuer says it
        found.append(
            {
                "PatientID": start[0],
                "IssuerOfPatientID": start[1],
                "surviving_patient_id": surviving,
                "surviving_patient_issuer": issuer,
                "corrections": links,
            }
        )
    return found


@dataclass(frozen=True)
class _Changed:
    """What has come into force or is not any more. corrections: these; persons: identifiers whose link is another."""

    corrections: list[Row]
    persons: set[str]


def _changed(
    batch_id: str, had: Sequence[Row], now: Sequence[Row], links: Sequence[Row], linked: Sequence[Row]
) -> _Changed:
    """What the batch brings into force counts each time that it is run, also when it is in force already."""
    old, new = ({row["correction_key"]: row for row in rows if _in_force(row)} for rows in (had, now))
    others = {row["correction_key"] for row in had if _in_force(row) and row["batch_id"] != batch_id}
    changed = [row for key, row in (old | new).items() if not (key in old) == (key in new) == (key in others)]
    before, after = ({_text(row): row for row in rows} for rows in (linked, links))
    differing = [row for key, row in (before | after).items() if (key in before) != (key in after)]
    persons = {row[name] for row in differing for name in ("PatientID", "surviving_patient_id")}
    persons |= {row["key"] for row in changed if row["scope"] == Scope.PATIENT_LINK}
    changed += [row for row in (old | new).values() if row["PatientID"] in persons]
    return _Changed([row for row in changed if row["scope"] != Scope.PATIENT_LINK], persons)


def _text(row: Row) -> str:
    return repr([row[name] for name in PATIENT_LINK.schema.names])


def _touched(lake: Lake, staging: Staging, now: Sequence[Row], changed: _Changed) -> pa.Table:
    """The studies that a change concerns, as received and as they are and were moved to; enters the moves."""
    with connect(lake, [BATCH_STUDY.name], within=staging.scope(BATCH_STUDY.name)) as connection:
        keys = {key for (key,) in connection.execute(f"SELECT DISTINCT study_key FROM {BATCH_STUDY.name}").fetchall()}
    keys.update(staging.read(Part.TOUCHED)["study_key"].to_pylist())
    about, moves = _objects(lake, now, changed)
    keys |= about
    keys |= moved_studies.enter_moves(lake, staging.batch_id, moves)
    keys |= moved_studies.targets_of(lake, keys)
    return pa.table({"study_key": sorted(keys)}, schema=SCHEMAS[Part.TOUCHED])


def _objects(lake: Lake, now: Sequence[Row], changed: _Changed) -> tuple[set[str], pa.Table]:
    """The studies of all objects that a change is about, as received, and where corrections move them now.

    Reads the columns that corrections look at of all of flat_metadata, once.
    """
    by_scope = {scope: {row["key"] for row in changed.corrections if row["scope"] == scope} for scope in KEYS}
    by_scope[Scope.PATIENT] |= changed.persons
    asked = {scope: found for scope, found in by_scope.items() if found}
    with connect(lake, ["flat_metadata"]) as connection:
        wanted = [{"about": str(scope), "name": name} for scope, found in asked.items() for name in sorted(found)]
        schema = pa.schema([("about", pa.string()), ("name", pa.string())])
        connection.register("wanted", pa.Table.from_pylist(wanted, schema=schema))
        terms = [f"{KEYS[scope]} IN (SELECT name FROM wanted WHERE about = '{scope}')" for scope in asked]
        connection.execute(
            f"CREATE TEMP TABLE concerned AS SELECT {', '.join(OBJECT_COLUMNS)} FROM flat_metadata "
            f"WHERE {' OR '.join(terms) or 'false'}"
        )
        connection.register(CORRECTION.name, pa.Table.from_pylist(list(now), schema=CORRECTION.schema))
        studies_of = connection.execute("SELECT DISTINCT study_key FROM concerned").fetchall()
        return {key for (key,) in studies_of}, arrow(connection, moves_of("concerned"))


def _publish(lake: Lake, batch_id: str, had: Sequence[Row], now: Sequence[Row]) -> None:
    """Replaces the rows of the batch, and of those whose state is another one now."""
    name = itemgetter("batch_id", "object_id", "record")
    states = {name(row): row["state"] for row in had}
    batches = {batch_id, *(row["batch_id"] for row in now if states.get(name(row)) not in (None, row["state"]))}
    rows = [row for row in now if row["batch_id"] in batches]
    lake.replace(CORRECTION.name, sorted(batches), pa.Table.from_pylist(rows, schema=CORRECTION.schema))


def _publish_links(lake: Lake, links: Sequence[Row], linked: Sequence[Row]) -> None:
    before, after = ({_text(row): row for row in rows} for rows in (linked, links))
    persons = {row["PatientID"] for key, row in (before | after).items() if (key in before) != (key in after)}
    if not persons:
        return
    rows = [row for row in links if row["PatientID"] in persons]
    with lake.committing(PATIENT_LINK.name):
        lake.replace(PATIENT_LINK.name, sorted(persons), pa.Table.from_pylist(rows, schema=PATIENT_LINK.schema))


_UNTOLD = """
-- one row per correction that is not in force and that no other batch has told of: neither the one that brought it nor
-- one that came later. A batch that has read the same object again tells of its own row, and not of this one
SELECT held.*, uri, member
FROM held
LEFT JOIN (FROM staged_raw UNION ALL BY NAME SELECT batch_id, object_id, uri, member FROM raw_files
           WHERE batch_id <> $own) AS raw USING (batch_id, object_id)
WHERE NOT EXISTS (
    SELECT 1 FROM ingestion_errors AS told
    WHERE told.object_id = held.object_id AND told.record = held.record AND told.code = held.code
        AND told.batch_id <> $own
        AND (told.batch_id = held.batch_id OR (told.batch_id, told.object_id) NOT IN (FROM brought))
)
ORDER BY ALL
"""
"""brought: batch_id and object_id of every row of correction."""


def _stage_errors(lake: Lake, staging: Staging, now: Sequence[Row], run_id: str) -> None:
    """Stages an error for each correction that a person has to look at, unless another batch has told of it."""
    held = [
        {
            **{name: row[name] for name in ("batch_id", "object_id", "record", "correction_key")},
            "code": _CODES[State(row["state"])],
        }
        for row in now
        if row["state"] in _CODES
    ]
    if not held and not any(name.endswith(f"/{ERRORS_FILE:06d}.arrow") for name in staging.names(Part.ERRORS)):
        return
    errors = [
        {
            "batch_id": staging.batch_id,
            **{name: row[name] for name in ("object_id", "record", "code", "uri", "member")},
            "stage": "record",
            "severity": str(CODES[row["code"]].severity),
            "detail": f"correction_key {row['correction_key']}: {CODES[row['code']].meaning}",
            "occurred_at": datetime.now(UTC),
            "run_id": run_id,
        }
        for row in (_untold(lake, staging, held, now) if held else [])
    ]
    staging.put(Part.ERRORS, ERRORS_FILE, pa.Table.from_pylist(errors, schema=SCHEMAS[Part.ERRORS]))
    staging.complete_as_it_is(Part.ERRORS)


def _untold(lake: Lake, staging: Staging, held: Sequence[Row], now: Sequence[Row]) -> list[dict[str, Any]]:
    names = ("batch_id", "object_id", "uri", "member")
    within = {"raw_files": {"batch_id": sorted({row["batch_id"] for row in held})}}
    with connect(lake, ["raw_files", "ingestion_errors"], within=within) as connection:
        connection.register("held", pa.Table.from_pylist(list(held), schema=_HELD))
        brought = pa.Table.from_pylist(list(now), schema=CORRECTION.schema).select(["batch_id", "object_id"])
        connection.register("brought", brought)
        connection.register("staged_raw", staging.read_whole(Part.RAW, [*names]))
        rows: list[dict[str, Any]] = (
            connection.sql(_UNTOLD, params={"own": staging.batch_id}).to_arrow_table().to_pylist()
        )
    return rows


_HELD = pa.schema(
    [CORRECTION.schema.field(name) for name in ("batch_id", "object_id", "record", "correction_key")]
    + [pa.field("code", pa.string())]
)
