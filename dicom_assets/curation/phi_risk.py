"""phi_risk: what may tell who the patient of a series is, and a score with its parts.

Belongs here: which series are to be judged, their rows, the words of patients, the score. Does not belong here: judging
headers (`series_headers`), which objects are current (`closed_batches`).

A row says which objects it was made from, so a run judges the headers of those series alone whose objects are others
now. Patients come and go as well: words of texts are kept as marks (`marks`), and all rows are compared anew with the
patients that the lake has now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.curation.closed_batches import FORM, ClosedBatches
from dicom_assets.curation.marks import Marker
from dicom_assets.curation.patient_words import words_of_patient
from dicom_assets.curation.series_headers import Judged, SeriesHeaders
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import object_rows
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.tag_tables import PHI_RISK

OBJECTS_AT_ONCE = 20_000
SERIES_AT_ONCE = 1_000
"""Of studies that are judged and committed together."""
PATIENTS_AT_ONCE = 10_000

_NAME = PHI_RISK.name
_GRAIN = ("source", "StudyInstanceUID", "SeriesInstanceUID")
_READ = (
    "PatientIdentityRemoved", "BurnedInAnnotation", "Modality", "SOPClassUID", "ImageType", "header",
)  # fmt: skip

DIRECT_POINTS = 30
INDIRECT_POINTS = 20
OWN_TEXT_POINTS, OTHER_TEXT_POINTS = 15, 5
PRIVATE_POINTS = 10
BURNED_IN_POINTS, LIKELY_POINTS = 20, 10
CLAIM_POINTS = 5


def score(row: Mapping[str, Any]) -> dict[str, int]:
    """The parts of a row's score and their sum, 0 to 100, by column."""
    parts = {
        "score_direct": DIRECT_POINTS if row["direct"] else 0,
        "score_indirect": min(INDIRECT_POINTS, len(row["indirect"])),
        "score_text": OWN_TEXT_POINTS if row["own_text"] else OTHER_TEXT_POINTS if row["other_text"] else 0,
        "score_private": min(PRIVATE_POINTS, row["private_elements"]),
        "score_pixels": {"attribute": BURNED_IN_POINTS, "likely": LIKELY_POINTS}.get(row["burned_in"] or "", 0),
        "score_claim": CLAIM_POINTS if row["contradictions"] else 0,
    }
    return {**parts, "score": sum(parts.values())}


_HELD = f"SELECT {', '.join(_GRAIN)}, study_key, made_from FROM {_NAME}"

_STALE = f"""
-- studies of which series are to be judged, or taken away
SELECT coalesce(now.study_key, held.study_key) AS study_key,
    count(*) FILTER (now.made_from IS DISTINCT FROM held.made_from) AS series,
    coalesce(sum(now.objects) FILTER (now.made_from IS DISTINCT FROM held.made_from), 0)::BIGINT AS objects
FROM now FULL JOIN ({_HELD}) AS held USING ({", ".join(_GRAIN)})
GROUP BY ALL HAVING bool_or(now.made_from IS DISTINCT FROM held.made_from)
ORDER BY study_key
"""


def judge_series(lake: Lake, closed: ClosedBatches, marker: Marker) -> int:
    """Judges the series that were not judged, or of which other objects are current now; how many. Raises LakeError."""
    now = closed.series()
    made_from = [f"{FORM}-{marker.name}-{one}" for one in now["made_from"].to_pylist()]
    now = now.set_column(now.schema.get_field_index("made_from"), "made_from", pa.array(made_from, pa.string()))
    with connect(lake, [_NAME]) as connection:
        connection.register("now", now)
        stale = arrow(connection, _STALE).to_pylist()
    for studies in _together(stale):
        _judge(lake, closed, marker, now.filter(pc.is_in(now["study_key"], pa.array(studies, pa.string()))), studies)
    return sum(row["series"] for row in stale)


def _together(stale: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Studies that are judged together."""
    held: list[str] = []
    objects = series = 0
    for row in stale:
        held.append(row["study_key"])
        objects, series = objects + row["objects"], series + row["series"]
        if objects >= OBJECTS_AT_ONCE or series >= SERIES_AT_ONCE:
            yield held
            held, objects, series = [], 0, 0
    if held:
        yield held


def _judge(lake: Lake, closed: ClosedBatches, marker: Marker, now: pa.Table, studies: Sequence[str]) -> None:
    """Judges what has changed of some studies, and replaces their rows."""
    wanted = {tuple(row[name] for name in _GRAIN): row for row in now.to_pylist()}
    with lake.committing(_NAME):
        with connect(lake, [_NAME], within={_NAME: {"study_key": studies}}) as connection:
            held = {tuple(row[name] for name in _GRAIN): row for row in arrow(connection, f"FROM {_NAME}").to_pylist()}
        fresh = [one for one, row in wanted.items() if held.get(one, {}).get("made_from") != row["made_from"]]
        found = _found(lake, closed, marker, {wanted[one]["study_key"] for one in fresh}, set(fresh))
        rows = [held[one] for one in wanted if one not in found and one not in fresh]
        rows += [_row(wanted[one], judged) for one, judged in found.items()]
        lake.replace(_NAME, studies, pa.Table.from_pylist(rows, schema=PHI_RISK.schema))


def _found(
    lake: Lake, closed: ClosedBatches, marker: Marker, studies: set[str], series: set[tuple[Any, ...]]
) -> dict[tuple[Any, ...], Judged]:
    """What the headers of some series hold; without those of which not every object could be read."""
    objects = closed.objects("study_key IN (SELECT unnest($studies))", {"studies": sorted(studies)})
    named = list(zip(*(objects[name].to_pylist() for name in _GRAIN), strict=True))
    left: dict[tuple[Any, ...], int] = {}
    for one in named:
        left[one] = left.get(one, 0) + 1
    headers = SeriesHeaders(marker)
    for rows, places in object_rows(lake, objects.select(["batch_id", "object_id"]), _READ):
        own = [named[place] for place in places.to_pylist()]
        at = [number for number, one in enumerate(own) if one in series]
        if not at:
            continue
        texts, own = rows["header"].fill_null("{}").take(at).to_pylist(), [own[number] for number in at]
        headers.add(own, texts)
        told = [rows[name].take(at).to_pylist() for name in _READ[:-1]]
        for one, text, removed, burned_in, modality, sop_class, kind in zip(own, texts, *told, strict=True):
            left[one] -= 1
            headers.add_kind(one, burned_in, modality, sop_class, kind or ())
            if removed == "YES":
                headers.add_claim(one, text)
    return {one: judged for one, judged in headers.found.items() if not left[one]}


def _row(now: Mapping[str, Any], found: Judged) -> dict[str, Any]:
    words = sorted((path, mark) for mark, path in found.kept_words())
    row = {
        **{name: now[name] for name in (*_GRAIN, "study_key", "objects", "made_from")},
        "direct": sorted(found.direct),
        "indirect": sorted(found.indirect),
        "uids": sorted(found.uids),
        "own_text": [],
        "other_text": [],
        "private_elements": len(found.private),
        "private_creators": sorted(found.creators),
        "burned_in": "attribute" if found.says_burned_in else "likely" if found.may_be_burned_in else None,
        "claims": found.claims,
        "contradictions": found.contradictions,
        "text_paths": [path for path, _ in words],
        "text_marks": [mark for _, mark in words],
        "text_is_whole": found.are_all,
    }
    return row | score(row)


_NAMES = "PatientName, patient_ideographic_name, patient_phonetic_name"
_PATIENTS = f"SELECT DISTINCT PatientID, IssuerOfPatientID, {_NAMES}, PatientBirthDate FROM series"

_COMPARED = f"""
-- rows whose texts are like other patients' than they say
WITH word AS (
    SELECT {", ".join(_GRAIN)}, unnest(text_paths) AS path, unnest(text_marks) AS mark FROM {_NAME}
),
met AS (
    SELECT {", ".join(f"word.{name}" for name in _GRAIN)}, path,
        bool_or(patient_word.person = own.person) AS is_own,
        bool_or(patient_word.person <> own.person) AS is_other
    FROM word JOIN patient_word USING (mark)
    JOIN own ON {" AND ".join(f"own.{name} = word.{name}" for name in _GRAIN)}
    GROUP BY ALL
),
told AS (
    SELECT {", ".join(_GRAIN)}, list_sort(list(path) FILTER (is_own)) AS own_text,
        list_sort(list(path) FILTER (is_other AND NOT is_own)) AS other_text
    FROM met GROUP BY ALL
)
SELECT risk.study_key, {", ".join(f"risk.{name}" for name in _GRAIN)},
    coalesce(told.own_text, []) AS own_text, coalesce(told.other_text, []) AS other_text
FROM {_NAME} AS risk
LEFT JOIN told ON {" AND ".join(f"told.{name} = risk.{name}" for name in _GRAIN)}
WHERE coalesce(told.own_text, []) IS DISTINCT FROM risk.own_text
    OR coalesce(told.other_text, []) IS DISTINCT FROM risk.other_text
ORDER BY risk.study_key
"""


def compare_texts(lake: Lake, marker: Marker) -> int:
    """Compares the words of all rows with the patients that the lake has; how many rows have changed.

    Reads all rows: grows with the lake. Raises LakeError.
    """
    with connect(lake, [_NAME, "series"]) as connection:
        _enter_patients(connection, marker)
        changed = arrow(connection, _COMPARED)
    studies = changed["study_key"].unique().to_pylist()
    for at in range(0, len(studies), SERIES_AT_ONCE):
        some = studies[at : at + SERIES_AT_ONCE]
        new = changed.filter(pc.is_in(changed["study_key"], pa.array(some, pa.string()))).to_pylist()
        texts = {tuple(row[name] for name in _GRAIN): row for row in new}
        with lake.committing(_NAME):
            with connect(lake, [_NAME], within={_NAME: {"study_key": some}}) as connection:
                rows = arrow(connection, f"FROM {_NAME}").to_pylist()
            for row in rows:
                told = texts.get(tuple(row[name] for name in _GRAIN))
                if told is not None:
                    row.update(own_text=told["own_text"], other_text=told["other_text"])
                    row.update(score(row))
            lake.replace(_NAME, some, pa.Table.from_pylist(rows, schema=PHI_RISK.schema))
    return len(changed)


_PERSON = "hash(coalesce(PatientID, PatientName), IssuerOfPatientID)"
"""SQL for who the patient of a series is, within one query: the identifier with its issuer, or else the name."""


def _enter_patients(connection: duckdb.DuckDBPyConnection, marker: Marker) -> None:
    """Makes the tables `own`, the patient of each series, and `patient_word`, the marks of each patient's words."""
    connection.execute(f"CREATE TEMP TABLE own AS SELECT {', '.join(_GRAIN)}, {_PERSON} AS person FROM series")
    connection.execute("CREATE TEMP TABLE patient_word (person UBIGINT, mark BIGINT)")
    connection.execute(
        f"CREATE TEMP TABLE patient AS SELECT {_PERSON} AS person, *, row_number() OVER () AS number FROM ({_PATIENTS})"
    )
    ((patients,),) = connection.execute("SELECT count(*) FROM patient").fetchall()
    for at in range(0, patients, PATIENTS_AT_ONCE):
        some = connection.execute(
            f"SELECT person, PatientID, PatientBirthDate, {_NAMES} FROM patient WHERE number > $1 AND number <= $2",
            [at, at + PATIENTS_AT_ONCE],
        ).fetchall()
        words = [
            (person, word)
            for person, identifier, born, *names in some
            for word in set(words_of_patient(names, identifier, born))
        ]
        found = {
            "person": pa.array([person for person, _ in words], pa.uint64()),
            "mark": pa.array([marker.mark(word.encode("utf-8", "surrogatepass")) for _, word in words], pa.int64()),
        }
        connection.register("found", pa.table(found))
        connection.execute("INSERT INTO patient_word FROM found")
        connection.unregister("found")
