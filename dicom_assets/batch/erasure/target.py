"""What of a lake belongs to a patient, a study, an instance or an object: found in its tables and in what is staged.

Belongs here: the queries that find it. Which identifiers are one patient is decided in `lake.subjects`. Does not belong
here: what is done with it.

An object is a patient's when it names this patient, or when it names none and every object of its study that names one
names this. An archive goes with the last of what it brought; with an object goes whatever lay at its place before and
never came in. A clinical file goes when none of its records stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.batch.erasure import row_rules
from dicom_assets.batch.erasure.record import SELFTEST, ErasureRefused, Record, new_id
from dicom_assets.fhir.conversions import text
from dicom_assets.lake.corrected_objects import TABLES as CORRECTING
from dicom_assets.lake.corrected_objects import applied
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.moved_studies import any_in
from dicom_assets.lake.query import scan
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.lake.subjects import clean, issuers_known, persons, same_patient
from dicom_assets.landing import refusals
from dicom_assets.landing.refusals import Identity
from dicom_assets.omop import integers
from dicom_assets.schema import keys
from dicom_assets.schema.registry import TABLES


class Scope(StrEnum):
    """What is asked for."""

    PATIENT = "patient"
    STUDY = "study"
    INSTANCE = "instance"
    OBJECT = "object"
    SELFTEST = SELFTEST


@dataclass(frozen=True)
class Target:
    """What is to be erased. name: PatientID, StudyInstanceUID, SOPInstanceUID or object_id. issuer: of a PatientID.

    objects: object_ids of what a self-test has delivered; its name is that of the self-test.
    """

    scope: Scope
    name: str
    issuer: str | None = None
    objects: tuple[str, ...] = ()


_NARROW = (
    "batch_id", "object_id", "source", "operation", "uri", "member", "study_key", "content_digest",
    "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
)  # fmt: skip
_RECORDS = ("batch_id", "object_id", "source", "record_key", "record_type", "record_values", "version_state",
            "PatientID", "IssuerOfPatientID", "server", "patient_reference")  # fmt: skip

_NAMED = f"SELECT *, {clean('PatientID')} AS id, {clean('IssuerOfPatientID')} AS issuer"
_PERSONS = persons("records")
"""Records with id and issuer of their person."""

_OF_PATIENT = f"""
-- one row per object of the wanted patients: those that are theirs, and those of nobody else in studies of theirs alone
WITH named AS ({_NAMED} FROM true_flat),
mine AS (
    SELECT named.*, coalesce(bool_or({same_patient("named", "wanted", "issuers")}), false) AS is_own
    FROM named
    LEFT JOIN wanted ON wanted.id = named.id
    LEFT JOIN issuers ON issuers.id = named.id
    GROUP BY ALL
),
studies AS (
    SELECT study_key FROM mine GROUP BY study_key
    HAVING bool_or(is_own) AND bool_and(is_own OR id IS NULL)
),
instances AS (
    SELECT study_key, SOPInstanceUID FROM mine WHERE operation = 'upsert' GROUP BY ALL HAVING bool_and(is_own)
)
SELECT batch_id, object_id FROM mine
WHERE is_own OR study_key IN (FROM studies)
    OR (operation = 'delete' AND (study_key, SOPInstanceUID) IN (SELECT (study_key, SOPInstanceUID) FROM instances))
"""

_OBJECTS = {
    Scope.PATIENT: _OF_PATIENT,
    Scope.STUDY: "SELECT batch_id, object_id FROM flat WHERE StudyInstanceUID = $name",
    Scope.INSTANCE: "SELECT batch_id, object_id FROM flat WHERE SOPInstanceUID = $name",
    Scope.OBJECT: "SELECT batch_id, object_id FROM arrived WHERE object_id = $name OR container_id = $name",
    Scope.SELFTEST: "SELECT batch_id, object_id FROM arrived WHERE $name <> '' AND (object_id IN (FROM delivered) "
    "OR container_id IN (FROM delivered))",
}

_TOGETHER = """
-- objects that go with those that were found: an archive of which nothing that it brought stays, with all its members;
-- whatever lay at the place of one of them and brought nothing itself
WITH brought AS (
    SELECT arrived.batch_id, container_id, object_id IN (FROM ids) AS goes
    FROM arrived JOIN ledger USING (batch_id, object_id)
    WHERE container_id IS NOT NULL AND outcome IN ('ingested', 'deleted') AND ledger.kind <> 'erased'
),
archives AS (
    SELECT container_id FROM brought
    SEMI JOIN (SELECT batch_id, object_id AS container_id FROM arrived WHERE kind = 'archive') AS own
        USING (batch_id, container_id)
    GROUP BY container_id HAVING bool_and(goes)
)
SELECT object_id FROM arrived WHERE object_id IN (FROM archives) OR container_id IN (FROM archives)
UNION
SELECT object_id FROM arrived
WHERE (source, uri, coalesce(member, '')) IN (
        SELECT (source, uri, coalesce(member, '')) FROM arrived WHERE object_id IN (FROM ids) AND kind <> 'change'
    )
    AND object_id NOT IN (SELECT object_id FROM flat) AND object_id NOT IN (SELECT object_id FROM records)
"""

_RECORDS_OF_PATIENT = f"""
WITH named AS (FROM {_PERSONS})
SELECT DISTINCT {", ".join(_RECORDS)}
FROM named JOIN wanted ON wanted.id = named.id LEFT JOIN issuers ON issuers.id = named.id
WHERE {same_patient("named", "wanted", "issuers")}
"""


def find(lake: Lake, target: Target, by: str) -> Record:
    """Everything of a target. Raises ErasureRefused when it is nothing.

    Looks through all rows of flat_metadata, raw_files and clinical, in narrow columns.
    """
    record = Record(new_id(), str(target.scope), by, datetime.now(UTC).isoformat())
    with lake.look_once([*TABLES]), lake.cursor() as connection:
        _views(connection, lake)
        connection.register("delivered", pa.table({"object_id": pa.array(target.objects, pa.string())}))
        patients = _patients(connection, target) if target.scope is Scope.PATIENT else []
        found = connection.execute(
            _OBJECTS[target.scope], {} if target.scope is Scope.PATIENT else {"name": target.name}
        ).fetchall()
        _ids(connection, {one for _, one in found})
        _records_of(connection, target)
        _ids(connection, {one for _, one in found} | _files_of_records(connection))
        together = {one for (one,) in connection.execute(_TOGETHER).fetchall()}
        ids = {one for (one,) in connection.execute("SELECT object_id FROM ids").fetchall()} | together
        _ids(connection, ids)
        record = replace(record, objects=_batches(connection, ids), records=_counted(connection), patients=patients)
        if target.scope is Scope.PATIENT:
            record = replace(record, references=_references(connection))
        if not record.objects and not record.records:
            raise ErasureRefused(f"The lake holds no such {target.scope}. Nothing was changed.")
        record = _with_studies(connection, lake, record)
        record = _with_numbers(connection, lake, record)
        record = replace(record, uris=_uris(connection), terms=_terms(connection, record, target))
        record = replace(record, rows=_rows(connection, lake, record))
    return record


def _views(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Makes known what tables and staging hold: flat, records, arrived, ledger."""
    staged = [Staging(lake.files, batch) for batch in sorted({n.split("/")[1] for n in lake.files.names(STAGING)})]
    for view, part, name, columns in (
        ("flat", Part.FLAT, "flat_metadata", _NARROW),
        ("records", Part.CLINICAL, "clinical", _RECORDS),
        ("arrived", Part.RAW, "raw_files", tuple(TABLES["raw_files"].schema.names)),
        ("ledger", Part.LEDGER, "validated_batch", ("batch_id", "object_id", "outcome", "kind")),
    ):
        schema = pa.schema([SCHEMAS[part].field(column) for column in columns])
        rows = [one.read(part, list(columns)) for one in staged]
        connection.register(f"staged_{view}", pa.concat_tables([schema.empty_table(), *rows]))
        listed = _listed(columns)
        connection.execute(
            f"CREATE TEMP VIEW {view} AS SELECT {listed} FROM {scan(lake, name)} "
            f"UNION ALL SELECT {listed} FROM staged_{view} "
            f"ANTI JOIN (SELECT batch_id, object_id FROM {scan(lake, name)}) AS there USING (batch_id, object_id)"
        )

    for name in CORRECTING:
        connection.execute(f"CREATE TEMP VIEW {name} AS FROM {scan(lake, name)}")
    # as corrections and links have it, which the hierarchy is made of
    true = applied("flat") if any_in(lake) else "FROM flat"
    connection.execute(f"CREATE TEMP TABLE true_flat AS SELECT {_listed(_NARROW)} FROM ({true})")
    studies = "study_key, source, StudyInstanceUID, object_id"
    connection.execute(f"CREATE TEMP VIEW placed AS SELECT {studies} FROM flat UNION SELECT {studies} FROM true_flat")


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _ids(connection: duckdb.DuckDBPyConnection, ids: set[str]) -> None:
    connection.execute("CREATE OR REPLACE TEMP TABLE ids (object_id VARCHAR)")
    connection.register("found_ids", pa.table({"object_id": pa.array(sorted(ids), pa.string())}))
    connection.execute("INSERT INTO ids FROM found_ids")


def _patients(connection: duckdb.DuckDBPyConnection, target: Target) -> list[tuple[str, str | None]]:
    """The identifiers of the patient, known to the queries as `wanted`."""
    name, issuer = text(target.name), text(target.issuer)
    if name is None:
        raise ErasureRefused("--patient is empty: give a PatientID. Nothing was changed.")
    for view, named in (("flat", f"{_NAMED} FROM true_flat"), ("records", f"FROM {_PERSONS}")):
        connection.execute(f"CREATE TEMP TABLE {view}_ids AS SELECT DISTINCT id, issuer FROM ({named})")
    connection.register(
        "asked", pa.table({"PatientID": pa.array([name]), "IssuerOfPatientID": pa.array([issuer], pa.string())})
    )
    ((name, issuer),) = connection.execute(f"SELECT id, issuer FROM {persons('asked')}").fetchall()  # who it is now
    connection.execute(f"CREATE TEMP TABLE issuers AS FROM {issuers_known('flat_ids', 'records_ids')}")
    known = connection.execute("SELECT known FROM issuers WHERE id = $1", [name]).fetchall()
    if issuer is None and known and known[0][0] > 1:
        raise ErasureRefused(
            f"{known[0][0]} issuers have issued this PatientID, and so to different patients: give one with --issuer. "
            "Nothing was changed."
        )
    patients: list[tuple[str, str | None]] = [(name, issuer)]
    if issuer is not None and (not known or known[0][0] <= 1):
        patients.append((name, None))  # who is called so without an issuer is the same patient
    connection.execute("CREATE TEMP TABLE wanted (id VARCHAR, issuer VARCHAR)")
    connection.executemany("INSERT INTO wanted VALUES (?, ?)", [list(one) for one in patients])
    others = connection.execute(
        "SELECT PatientID, IssuerOfPatientID FROM patient_link WHERE surviving_patient_id = $1 "
        "AND ($2 IS NULL OR surviving_patient_issuer IS NULL OR surviving_patient_issuer = $2) ORDER BY ALL",
        [name, issuer],
    ).fetchall()
    return [*patients, *((one, by) for one, by in others)]


def _records_of(connection: duckdb.DuckDBPyConnection, target: Target) -> None:
    """Makes `gone`: clinical records of the patient, of the objects, and those that name a study that goes."""
    columns = ", ".join(_RECORDS)
    parts = [f"SELECT {columns} FROM records WHERE object_id IN (FROM ids)"]
    if target.scope is Scope.PATIENT:
        parts.append(_RECORDS_OF_PATIENT)
    if target.scope in (Scope.PATIENT, Scope.STUDY):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE uids AS SELECT DISTINCT StudyInstanceUID AS uid FROM flat "
            "GROUP BY study_key, StudyInstanceUID HAVING bool_and(object_id IN (FROM ids))"
        )
        parts.append(
            f"SELECT {columns} FROM records SEMI JOIN uids ON contains(record_values, uid || '\"') "
            "WHERE record_type IN ('ImagingStudy', 'DiagnosticReport', 'ImagingSelection', 'Observation')"
        )
    connection.execute(f"CREATE TEMP TABLE gone AS {' UNION '.join(f'({part})' for part in parts)}")


def _files_of_records(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Clinical files of which no record stays."""
    rows = connection.execute(
        "SELECT object_id FROM records WHERE object_id IN (SELECT object_id FROM gone) GROUP BY object_id "
        "HAVING bool_and((batch_id, object_id, record_key) IN (SELECT (batch_id, object_id, record_key) FROM gone))"
    ).fetchall()
    return {one for (one,) in rows}


def _batches(connection: duckdb.DuckDBPyConnection, ids: set[str]) -> dict[str, list[str]]:
    rows = connection.execute(
        "SELECT object_id, list(DISTINCT batch_id ORDER BY batch_id) FROM arrived "
        "WHERE object_id IN (FROM ids) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    found: dict[str, list[str]] = {one: [] for one in sorted(ids)}
    return found | dict(rows)


def _counted(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str, str, int]]:
    connection.execute(  # of the objects that were added since
        f"INSERT INTO gone SELECT {', '.join(_RECORDS)} FROM records WHERE object_id IN (FROM ids) "
        "AND (batch_id, object_id, record_key) NOT IN (SELECT (batch_id, object_id, record_key) FROM gone)"
    )
    return [
        (batch, one, key, source, int(count))
        for batch, one, key, source, count in connection.execute(
            "SELECT batch_id, object_id, record_key, source, count(*) FILTER (version_state IS NULL) FROM gone "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    ]


def _references(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """What resources of FHIR call the patient: source, server, name."""
    rows = connection.execute(
        "SELECT DISTINCT source, server, patient_reference FROM gone WHERE patient_reference IS NOT NULL ORDER BY ALL"
    ).fetchall()
    return sorted({(source, server or "", refusals.name_of(name) or "") for source, server, name in rows})


def _with_studies(connection: duckdb.DuckDBPyConnection, lake: Lake, record: Record) -> Record:
    """Studies that lose rows, with what stands for them elsewhere."""
    rows = connection.execute(
        "SELECT study_key, source, StudyInstanceUID, bool_and(object_id IN (FROM ids)) FROM placed GROUP BY ALL "
        "HAVING bool_or(object_id IN (FROM ids)) ORDER BY study_key"
    ).fetchall()
    indexed = connection.execute(
        f"SELECT DISTINCT batch_id FROM {scan(lake, 'batch_study')} WHERE list_contains($1, study_key) ORDER BY 1",
        [[key for key, *_ in rows]],
    ).fetchall()
    whole = [(key, source, uid) for key, source, uid, is_whole in rows if is_whole]
    siblings = connection.execute(
        "SELECT DISTINCT study_key FROM flat WHERE list_contains($1, StudyInstanceUID) AND NOT list_contains($2, "
        "study_key) ORDER BY 1",
        [[uid for _, _, uid, _ in rows], [key for key, *_ in rows]],
    ).fetchall()
    return replace(
        record,
        indexed=[batch for (batch,) in indexed],
        touched=[key for key, *_ in rows],
        whole=[key for key, _, _ in whole],
        studies=[(source, uid) for _, source, uid in whole],
        siblings=[key for (key,) in siblings],
    )


_GONE_SERIES = f"""
-- one row per series of which nothing stays, with whom its objects were said to be of
SELECT study_key, source, StudyInstanceUID, SeriesInstanceUID,
    list(DISTINCT {{'id': id, 'issuer': issuer, 'accession': accession}}) AS said
FROM ({_NAMED}, {clean("AccessionNumber")} AS accession FROM flat)
GROUP BY ALL HAVING bool_and(object_id IN (FROM ids))
"""

_USED_ALONE = """
-- ids of persons, visits and procedures that only these rows of image_occurrence have
SELECT DISTINCT domain, id FROM (
    SELECT image_occurrence_id, unnest([
        {'domain': 'person', 'id': person_id}, {'domain': 'visit_occurrence', 'id': visit_occurrence_id},
        {'domain': 'procedure_occurrence', 'id': procedure_occurrence_id}
    ], recursive := true) FROM image_occurrence
)
WHERE id < 0
GROUP BY domain, id HAVING bool_and(image_occurrence_id IN (FROM going))
"""


def _with_numbers(connection: duckdb.DuckDBPyConnection, lake: Lake, record: Record) -> Record:
    """Rows of image_occurrence that go, and ids that nobody uses then: those of gone series, and of their patients."""
    series = connection.execute(_GONE_SERIES).fetchall()
    columns = [pa.array([row[at] for row in series], pa.string()) for at in range(4)]
    connection.register("gone_series", pa.table(columns, names=["study_key", "source", "study", "series"]))
    for name in ("image_occurrence", "image_occurrence_origin"):
        connection.execute(f"CREATE TEMP VIEW {name} AS FROM {scan(lake, name)}")
    going = connection.execute(
        "SELECT image_occurrence_id FROM image_occurrence_origin AS origin WHERE (source, StudyInstanceUID, "
        "SeriesInstanceUID) IN (SELECT (source, study, series) FROM gone_series) ORDER BY 1"
    ).fetchall()
    connection.register("going_ids", pa.table({"id": pa.array([one for (one,) in going], pa.int64())}))
    connection.execute("CREATE TEMP TABLE going AS FROM going_ids")
    alone = connection.execute(_USED_ALONE).fetchall()
    named = pa.table({"key": pa.array(sorted(_natural_keys(series)), pa.string())})
    connection.register("natural_keys", named)
    numbers = scan(lake, row_rules.NUMBERS)
    used = " UNION ".join(
        f"SELECT {column} AS id FROM image_occurrence"
        for column in ("image_occurrence_id", "person_id", "visit_occurrence_id", "procedure_occurrence_id")
    )
    unused = connection.execute(
        f"SELECT domain, id FROM {numbers} AS given WHERE natural_key IN (FROM natural_keys) "
        f"AND NOT EXISTS (SELECT 1 FROM ({used}) AS used WHERE used.id = given.id)"
    ).fetchall()
    own = [("image_occurrence", one) for (one,) in going]
    return replace(
        record, occurrences=[one for (one,) in going], retired=sorted({*own, *map(tuple, alone), *map(tuple, unused)})
    )


def _natural_keys(series: list[tuple[Any, ...]]) -> Iterator[str]:
    """What numbers of series that go, and of whoever they were said to be of, may stand for."""
    for study_key, source, study, one, said in series:
        yield integers.series_key(source, study, one)
        for who in said:
            for conflict in (False, True):
                person = integers.person_key(source, who["id"], who["issuer"], study_key, conflict)
                yield person
                yield integers.order_key(person, who["accession"], study_key)


def _uris(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Places that no object has any more when these have gone."""
    rows = connection.execute(
        "SELECT uri FROM arrived WHERE NOT starts_with(uri, 'erased:') GROUP BY uri "
        "HAVING bool_and(object_id IN (FROM ids)) ORDER BY 1"
    ).fetchall()
    return [uri for (uri,) in rows]


_FEWEST_LETTERS = 6
"""Letters of a PatientID from which on it is looked for: a shorter one stands for many things."""


def _terms(connection: duckdb.DuckDBPyConnection, record: Record, target: Target) -> list[str]:
    """What the search looks for: what names this and nothing that stays."""
    found: set[str] = {*record.objects, *record.whole, *map(keys.position, record.whole), *_uris(connection)}
    for column in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "content_digest"):
        found.update(
            value
            for (value,) in connection.execute(
                f"SELECT {column} FROM flat WHERE {column} IS NOT NULL GROUP BY 1 "
                "HAVING bool_and(object_id IN (FROM ids))"
            ).fetchall()
        )
    found.update(
        key
        for (key,) in connection.execute(
            "SELECT record_key FROM records GROUP BY record_key HAVING bool_and((batch_id, object_id, record_key) IN "
            "(SELECT (batch_id, object_id, record_key) FROM gone))"
        ).fetchall()
    )
    if target.scope is Scope.PATIENT:
        found.update(
            one for one, _ in record.patients if len(one) >= _FEWEST_LETTERS and _is_nobody_elses(connection, one)
        )
    return sorted(found)


def _is_nobody_elses(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether what stays names nobody by the same identifier."""
    rows = connection.execute(
        f"SELECT 1 FROM ({_NAMED} FROM flat) WHERE id = $1 AND object_id NOT IN (FROM ids) UNION "
        f"SELECT 1 FROM ({_NAMED} FROM records) WHERE id = $1 "
        "AND (batch_id, object_id, record_key) NOT IN (SELECT (batch_id, object_id, record_key) FROM gone) LIMIT 1",
        [name],
    ).fetchall()
    return not rows


def _rows(connection: duckdb.DuckDBPyConnection, lake: Lake, record: Record) -> dict[str, int]:
    row_rules.register(connection, record)
    counts = {}
    for name, sql in row_rules.each().items():
        counted = connection.execute(f"SELECT count(*) FROM {scan(lake, name)} WHERE {sql}").fetchall()
        counts[name] = int(counted[0][0])
    return counts


def recognised_by(record: Record, target: Target, key: bytes) -> Record:
    """A record with the digests by which what was erased is recognised when it arrives again."""
    identities = [refusals.digest(key, Identity.STUDY, uid) for _, uid in record.studies]
    if target.scope is Scope.PATIENT:
        for one, issuer in record.patients:
            identities.append(refusals.digest(key, Identity.PATIENT, one, issuer))
            if issuer is None and target.issuer is None:
                identities.append(refusals.digest(key, Identity.ANY_ISSUER, one))
        identities += [refusals.digest(key, Identity.REFERENCE, *one) for one in record.references]
    elif target.scope is Scope.INSTANCE:
        identities = [refusals.digest(key, Identity.INSTANCE, target.name)]
    elif target.scope in (Scope.OBJECT, Scope.SELFTEST):
        identities = []
    objects = [refusals.digest(key, Identity.OBJECT, one) for one in record.objects]
    return replace(record, identities=sorted(set(identities)), digests=objects)
