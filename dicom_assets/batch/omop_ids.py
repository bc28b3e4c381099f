"""The integers of OMOP that a batch needs: looked up, found again where the table has lost them, otherwise given out.

Belongs here: reading omop_identifier and image_occurrence for it, and the commit. Does not belong here: natural keys
and which integer comes next (`dicom_assets.omop.integers`).

An id that stands in image_occurrence is in use, whether omop_identifier knows it or not: data sets that were made of
the lake refer to it. So nothing is given out up to the outermost id of both tables, and an id that omop_identifier has
lost goes back to the series, person, visit or procedure whose rows have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.lake import summaries
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.lake.studies import study_scope
from dicom_assets.lake.subjects import subjects
from dicom_assets.omop import image_occurrence
from dicom_assets.omop.integers import Domain, Wanted, allocate
from dicom_assets.schema.registry import IMAGE_OCCURRENCE, IMAGE_OCCURRENCE_ORIGIN, OMOP_IDENTIFIER

STUDIES_AT_ONCE = 2_000
"""Studies whose ids are looked for together where ids were lost."""

_SURROGATES = {
    Domain.PERSON: "person_id",
    Domain.VISIT: "visit_occurrence_id",
    Domain.PROCEDURE: "procedure_occurrence_id",
}

_COLUMNS = {Domain.IMAGE: "image_occurrence_id", **_SURROGATES}
"""The column of image_occurrence that has a domain's ids: surrogates below 0, others are of the user's own database."""

_READ = f"""
CREATE TEMP TABLE used AS SELECT {", ".join(_COLUMNS.values())} FROM image_occurrence;
CREATE TEMP TABLE given AS SELECT domain, id FROM omop_identifier
"""

_OUTERMOST = f"""
-- one row per domain: the id that is farthest from 0
SELECT domain, arg_max(id, abs(id)) FROM (
    SELECT domain, arg_max(id, abs(id)) AS id FROM given GROUP BY domain
    UNION ALL
    SELECT '{Domain.IMAGE}', max(image_occurrence_id) FROM used
    {" ".join(f"UNION ALL SELECT '{domain}', min({column}) FILTER ({column} < 0) FROM used"
              for domain, column in _SURROGATES.items())}
)
WHERE id IS NOT NULL
GROUP BY domain
"""  # fmt: skip

_GIVEN_OF_FILES = """
-- one row per file of omop_identifier and domain
SELECT parse_filename(filename) AS file, domain, min(id) AS low, max(id) AS high, count(DISTINCT id) AS ids
FROM {source} GROUP BY ALL ORDER BY ALL
"""

_ID_OF_EACH = ", ".join(f"{{'domain': '{domain}', 'id': {column}}}" for domain, column in _COLUMNS.items())

_USED_OF_FILES = f"""
-- one row per file of image_occurrence and domain of which it has ids
SELECT file, domain, min(id) AS low, max(id) AS high, 0 AS ids FROM (
    SELECT parse_filename(filename) AS file, unnest([{_ID_OF_EACH}], recursive := true) FROM {{source}}
)
WHERE id < 0 OR domain = '{Domain.IMAGE}' AND id IS NOT NULL GROUP BY ALL ORDER BY ALL
"""

_RANGES = pa.schema([("domain", pa.string()), ("low", pa.int64()), ("high", pa.int64()), ("ids", pa.int64())])
"""ids: how many different ones were given out in the range."""

_LOST = " UNION ".join(
    f"""
    -- series with an id that omop_identifier does not have; one domain after the other, by integers alone
    SELECT image_occurrence_id FROM used
    WHERE {column} {"IS NOT NULL" if domain is Domain.IMAGE else "< 0"}
        AND {column} NOT IN (SELECT id FROM given WHERE domain = '{domain}')
    """
    for domain, column in _COLUMNS.items()
)

_LOST_ROWS = """
-- one row per series with an id that omop_identifier does not have, with all its ids
SELECT study_key, source, StudyInstanceUID, SeriesInstanceUID, person_from, image_occurrence.*
FROM image_occurrence_origin
JOIN image_occurrence USING (image_occurrence_id)
WHERE image_occurrence_id IN (FROM lost)
ORDER BY study_key IN (FROM touched), study_key, image_occurrence_id
"""

_PAIR = pa.schema([("domain", pa.string()), ("natural_key", pa.string()), ("id", pa.int32())])

_FREE = """
-- one row per key and id that omop_identifier has neither of, in the order in which they were found
SELECT domain, natural_key, id FROM (SELECT *, row_number() OVER () AS place FROM pairs)
ANTI JOIN omop_identifier USING (domain, natural_key)
ANTI JOIN (SELECT domain, id FROM omop_identifier) AS given USING (domain, id)
ORDER BY place
"""

_SERIES = f"""
-- one row per series of some studies, with what ids are made from
SELECT {", ".join(f'{"study" if name in image_occurrence.SUBJECT else "series"}."{name}"'
                  for name in image_occurrence.KEY_COLUMNS)}, study.subject_state
FROM series
SEMI JOIN wanted USING (study_key)
JOIN {subjects()} AS study USING (study_key, source, StudyInstanceUID)
"""  # fmt: skip


def identified(lake: Lake, staging: Staging, wanted: Sequence[Wanted]) -> tuple[dict[Wanted, int], int]:
    """The ids of these keys, and how many had to be given out for it. Raises IdentifiersExhausted, LakeError."""
    version, known = lake.extents(OMOP_IDENTIFIER.name).version, _known(lake, wanted)
    if known.keys() >= set(wanted):
        return known, 0
    with lake.committing(OMOP_IDENTIFIER.name):
        if lake.extents(OMOP_IDENTIFIER.name).version != version:
            known = _known(lake, wanted)
        outermost, found = _in_use(lake, staging)
        known |= found
        fresh = allocate(wanted, known, outermost, staging.batch_id)
        if len(fresh) or found:
            scope = staging.scope(OMOP_IDENTIFIER.name)
            with connect(lake, [OMOP_IDENTIFIER.name], within=scope) as connection:
                own = arrow(connection, "SELECT * FROM omop_identifier").cast(OMOP_IDENTIFIER.schema)
            again = pa.Table.from_pylist(
                [
                    {"domain": domain, "natural_key": key, "id": number, "batch_id": staging.batch_id}
                    for (domain, key), number in found.items()
                ],
                schema=OMOP_IDENTIFIER.schema,
            )
            lake.replace(OMOP_IDENTIFIER.name, [staging.batch_id], pa.concat_tables([own, again, fresh]))
    return known | {(row["domain"], row["natural_key"]): row["id"] for row in fresh.to_pylist()}, len(fresh)


def _known(lake: Lake, wanted: Sequence[Wanted]) -> dict[Wanted, int]:
    """Ids that were given out for these keys."""
    asked = pa.table(
        {"domain": [str(domain) for domain, _ in wanted], "natural_key": [key for _, key in wanted]},
        schema=pa.schema([pa.field("domain", pa.string()), pa.field("natural_key", pa.string())]),
    )
    with connect(lake, [OMOP_IDENTIFIER.name]) as connection:
        connection.register("asked", asked)
        known = connection.execute(
            "SELECT domain, natural_key, id FROM omop_identifier SEMI JOIN asked USING (domain, natural_key)"
        ).fetchall()
    return {(domain, key): number for domain, key, number in known}


def _in_use(lake: Lake, staging: Staging) -> tuple[dict[str, int], dict[Wanted, int]]:
    """By domain the outermost id that is in use, and those that omop_identifier has lost, by what they stand for."""
    whole = _without_gaps(lake)
    if whole is not None:
        return {domain: max(ends, key=abs) for domain, ends in whole.items()}, {}
    with connect(lake, [OMOP_IDENTIFIER.name, IMAGE_OCCURRENCE.name, IMAGE_OCCURRENCE_ORIGIN.name]) as connection:
        connection.execute(_READ)
        outermost = dict(connection.execute(_OUTERMOST).fetchall())
        connection.execute(f"CREATE TEMP TABLE lost AS {_LOST}")
        if not connection.execute("FROM lost LIMIT 1").fetchall():
            return outermost, {}
        connection.register("touched", staging.read(Part.TOUCHED))
        rows = arrow(connection, _LOST_ROWS)
        return outermost, _found_again(connection, lake, rows) if len(rows) else {}


def _without_gaps(lake: Lake) -> dict[str, tuple[int, int]] | None:
    """By domain the smallest and the largest id given out, where every integer between is and all ids in use are among.

    None where that is not so. Files tell, of which each is looked at once: mostly one goes on where another one ends.
    """
    found: dict[str, tuple[int, int]] = {}
    for row in _ranges(lake, OMOP_IDENTIFIER.name, _GIVEN_OF_FILES):
        low, high = row["low"], row["high"]
        before = found.get(row["domain"], (low, low - 1))
        if high - low + 1 != row["ids"] or before[1] + 1 != low:
            return None
        found[row["domain"]] = before[0], high
    for row in _ranges(lake, IMAGE_OCCURRENCE.name, _USED_OF_FILES):
        given = found.get(row["domain"])
        if given is None or not given[0] <= row["low"] <= row["high"] <= given[1]:
            return None
    return found


def _ranges(lake: Lake, name: str, sql: str) -> list[dict[str, Any]]:
    """What SQL says of each file and domain, in the order of ids."""
    rows = summaries.of_files(lake, name, sql, sql, _RANGES).to_pylist()
    return sorted((row for row in rows if row["domain"] is not None), key=lambda row: (row["domain"], row["low"]))


def _found_again(connection: duckdb.DuckDBPyConnection, lake: Lake, lost: pa.Table) -> dict[Wanted, int]:
    """What lost ids stand for, where that is certain: an id goes to one key, and a key has one id.

    Studies that the batch touches come last: what they say of their patients may be newer than their ids.
    """
    pairs = [(domain, key, number) for (domain, key), number in _pairs(lake, lost)]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*pairs, strict=True), _PAIR.types, strict=True)]
    connection.register("pairs", pa.table(columns or _PAIR.empty_table().columns, schema=_PAIR))
    found: dict[Wanted, int] = {}
    taken: set[tuple[str, int]] = set()
    for domain, key, number in connection.execute(_FREE).fetchall():
        if (domain, key) not in found and (domain, number) not in taken:
            found[domain, key] = number
            taken.add((domain, number))
    return found


def _pairs(lake: Lake, lost: pa.Table) -> Iterator[tuple[Wanted, int]]:
    """Natural keys with the ids that the rows of their series have."""
    studies = list(dict.fromkeys(lost["study_key"].to_pylist()))
    places = {key: place // STUDIES_AT_ONCE for place, key in enumerate(studies)}
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in lost.to_pylist():
        groups.setdefault(places[row["study_key"]], []).append(row)
    for rows in groups.values():
        series = _series(lake, [row["study_key"] for row in rows])
        for row in rows:
            own = series.get((row["source"], row["StudyInstanceUID"], row["SeriesInstanceUID"]))
            if own is not None:
                yield from _ids_of(own, row)


def _series(lake: Lake, studies: Sequence[str]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    names = ["study", "series"]
    with connect(lake, names, within=study_scope(lake, names, studies)) as connection:
        connection.register("wanted", pa.table({"study_key": pa.array(sorted(set(studies)), pa.string())}))
        rows = arrow(connection, _SERIES).to_pylist()
    return {(row["source"], row["StudyInstanceUID"], row["SeriesInstanceUID"]): row for row in rows}


def _ids_of(series: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[tuple[Wanted, int]]:
    keys = image_occurrence.keys_of(series)
    yield (str(Domain.IMAGE), keys.image), row["image_occurrence_id"]
    if image_occurrence.person_state(series) != row["person_from"] != "mapping":
        return  # its study has come to another patient since
    for domain, key in image_occurrence.surrogates(keys).items():
        number = row[_SURROGATES[domain]]
        if number is not None and number < 0:
            yield (str(domain), key), number
