"""Rules over studies: instance, series and study are what flat_metadata gives, FHIR and OMOP what these give.

Belongs here: each rule's SQL over a range of studies, written independently of the code that makes the rows: newest
versions by comparison of whole keys instead of windows, attributes by the key of versions instead of a rank. Does not
belong here: single batches (`batches`).

A study that a batch touches which is not closed may be between two states; it is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from dicom_assets.batch.checks.conflict_sql import MULTIPLE, said
from dicom_assets.batch.checks.corrected import corrected, is_corrected
from dicom_assets.batch.checks.hierarchy_checks import is_frequent
from dicom_assets.batch.checks.same_uid_checks import SAID
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound
from dicom_assets.lake.quoting import quoted
from dicom_assets.schema.attributes import TOLD_WITH
from dicom_assets.schema.correction_tables import CORRECTED_BY, RECEIVED
from dicom_assets.schema.registry import FLAT_METADATA, INSTANCE, SERIES, STUDY, Table
from dicom_assets.settings import CurationSettings

ROWS_AT_ONCE = 1_000_000
"""Rows of flat_metadata that are looked at together, about."""

_NEWEST = "(version_at, sequence, object_id)"
_VERSION = "(version_at, sequence, object_id, ingested_at)"
"""The same of rows of flat_metadata, which may have an object twice: a window that was read again."""
_SERIES_GRAIN = "source, StudyInstanceUID, SeriesInstanceUID"
_INSTANCE_GRAIN = f"{_SERIES_GRAIN}, SOPInstanceUID"


@dataclass(frozen=True, slots=True)
class StudyRule:
    """A rule: two queries that must give the same rows, study by study. name: also the table it is about."""

    name: str
    description: str
    tables: tuple[str, ...]
    expected: str
    actual: str


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_COPIED = [column.name for column in INSTANCE.columns if column.name in FLAT_METADATA]
_TOLD = [CORRECTED_BY, *RECEIVED]
_UNCHANGED = [name for name in _COPIED if name not in {"study_key", *RECEIVED.values()}]
"""Columns of an instance that are the object's own, whatever corrections say."""

_OVERWRITTEN = """version_text IS NULL AND EXISTS (
    SELECT 1 FROM overwritten AS last
    WHERE last.source = flat.source AND last.uri = flat.uri
        AND coalesce(last.member, '') = coalesce(flat.member, '')
        AND (last.claimed_at > flat.ingested_at OR operation = 'delete' AND last.claimed_at >= flat.ingested_at)
)"""
"""Of rows of flat_metadata `flat`: their place was claimed again, or they say that what lay there is gone."""

_INSTANCES = f"""
-- instances by their newest version, but for those whose place was claimed again, and for deletes of places
WITH placed AS (SELECT *, {_OVERWRITTEN} AS is_overwritten FROM flat_metadata AS flat),
versions AS (
    SELECT
        {_INSTANCE_GRAIN}, max({_VERSION}) FILTER (NOT is_overwritten) AS newest,
        min(ingested_at) AS first_at, max(ingested_at) AS last_at
    FROM placed GROUP BY ALL
)
SELECT study_key, hash({_listed(_COPIED)}, first_at, last_at) AS content
FROM placed JOIN versions USING ({_INSTANCE_GRAIN})
WHERE {_VERSION} = newest AND operation = 'upsert' AND NOT is_overwritten
"""

_CORRECTED_INSTANCES = f"""
-- the same in a lake with corrections: what flat_corrected says that is current
WITH versions AS (
    SELECT
        {_INSTANCE_GRAIN}, max({_VERSION}) FILTER (takes_part) AS newest,
        min(ingested_at) AS first_at, max(ingested_at) AS last_at
    FROM flat_corrected GROUP BY ALL
)
SELECT study_key, hash({_listed(_COPIED)}, {_listed(_TOLD)}, first_at, last_at) AS content
FROM flat_corrected JOIN versions USING ({_INSTANCE_GRAIN})
WHERE {_VERSION} = newest AND takes_part
"""

_PLACED = f"(SELECT *, NOT ({_OVERWRITTEN}) AS takes_part FROM flat_received AS flat)"

_CLAIMED_TWICE = f"""
-- one row per SOP Instance UID that files at different places have with different headers, in one study
SELECT study_key, SOPInstanceUID AS uid, list({{'batch_id': batch_id, 'object_id': object_id}}) AS objects
FROM (
    SELECT batch_id, object_id, study_key, SOPInstanceUID, source, uri, member, operation, version_text, ingested_at,
        {SAID} AS said
    FROM flat_metadata
    SEMI JOIN (
        SELECT study_key, SOPInstanceUID FROM flat_metadata
        WHERE operation = 'upsert' AND version_text IS NULL
        GROUP BY ALL HAVING min(content_digest) < max(content_digest)
    ) AS doubtful USING (study_key, SOPInstanceUID)
) AS flat
WHERE operation = 'upsert' AND version_text IS NULL AND NOT EXISTS (
    SELECT 1 FROM overwritten AS last
    WHERE last.source = flat.source AND last.uri = flat.uri
        AND coalesce(last.member, '') = coalesce(flat.member, '') AND last.claimed_at > flat.ingested_at
)
GROUP BY ALL
HAVING count(DISTINCT said) > 1 AND count(DISTINCT concat_ws('!', uri, member)) > 1
"""

_CONTENTS = f"""
-- batches whose rows of flat_metadata say something else than the instance that was made from them
SELECT DISTINCT batch_id FROM flat_metadata JOIN instance USING (batch_id, object_id)
WHERE hash({", ".join(f'flat_metadata."{name}"' for name in _COPIED)})
    <> hash({", ".join(f'instance."{name}"' for name in _COPIED)})
"""

_AS_RECEIVED = ", ".join(
    f'if(instance.{CORRECTED_BY} IS NULL, instance."{name}", instance.{told})' for told, name in RECEIVED.items()
)
_CORRECTED_CONTENTS = f"""
-- the same in a lake with corrections, by what the instance says that the object says
SELECT DISTINCT batch_id FROM flat_metadata JOIN instance USING (batch_id, object_id)
WHERE hash({", ".join(f'flat_metadata."{name}"' for name in [*_UNCHANGED, *RECEIVED.values()])})
    <> hash({", ".join(f'instance."{name}"' for name in _UNCHANGED)}, {_AS_RECEIVED})
"""

_UNTOLD = f"""
SELECT DISTINCT object.batch_id FROM (SELECT unnest(objects) AS object FROM ({_CLAIMED_TWICE}))
"""

_TOLD_BY_BATCHES = {"instance": _CONTENTS, "sop_instances": _UNTOLD}
"""Rules of which a study that is made again sets nothing right: which of the two is right, only the source can say; and
errors are their batch's. SQL for the batches to run again."""

_INSTANCES_THERE = f"SELECT study_key, hash({_listed(_COPIED)}, first_seen_at, updated_at) AS content FROM instance"
_CORRECTED_THERE = (
    f"SELECT study_key, hash({_listed(_COPIED)}, {_listed(_TOLD)}, first_seen_at, updated_at) AS content FROM instance"
)


def _last(name: str) -> str:
    """The newest value of an attribute; what is told with another attribute, from the object that tells that one."""
    if name not in TOLD_WITH:
        return f'arg_max("{name}", {_NEWEST})'
    said = f"max({{'at': version_at, 'number': sequence, 'name': object_id, 'value': \"{name}\"}})"
    own, lead = (f'{said} FILTER ("{column}" IS NOT NULL)' for column in (name, TOLD_WITH[name]))
    return f"coalesce({lead}, {own})['value']"


def _most(lead: str, names: Sequence[str], grain: str) -> str:
    """SQL for the value that most objects tell of an attribute, of equals the newest, with what is told beside it."""
    value = f"array_to_string(\"{lead}\", '\\')" if lead in MULTIPLE else f'"{lead}"::VARCHAR'
    told = ", ".join(f"'{name}': \"{name}\"" for name in names)
    return f"""
    SELECT {grain}, max({{'objects': objects, 'newest': newest, 'told': told}})['told'] AS most_{lead} FROM (
        SELECT {grain}, {said(quoted(lead), value, (lead,))} AS said, count(*) AS objects, max({_NEWEST}) AS newest,
            arg_max({{{told}}}, {_NEWEST}) AS told
        FROM instance WHERE "{lead}" IS NOT NULL GROUP BY ALL
    ) WHERE said IS NOT NULL GROUP BY ALL
    """


def _described(table: Table, grain: str, counts: dict[str, str], settings: CurationSettings) -> str:
    """Rows of a level as the instances below it give them: counts, and the newest value of each attribute."""
    keys = grain.split(", ")
    made = {
        "object_id": "max({'at': version_at, 'number': sequence, 'name': object_id})['name']",
        "version_at": "max(version_at)",
        CORRECTED_BY: f"(SELECT list(DISTINCT one ORDER BY one) FROM unnest(flatten(list({CORRECTED_BY}))) AS t (one))",
        **counts,
    }
    columns = [
        f'any_value("{name}")' if name == "study_key"
        else f'"{name}"' if name in keys
        else f"{made[name]}" if name in made
        else _last(name)
        for name in table.schema.names
    ]  # fmt: skip
    listed = ", ".join(f'{sql} AS "{name}"' for sql, name in zip(columns, table.schema.names, strict=True))
    rows, replaced = f"(SELECT {listed} FROM instance GROUP BY {grain})", []
    for lead in table.schema.names:
        if lead in {*keys, *made, *TOLD_WITH, "study_key"} or not is_frequent(lead, settings):
            continue
        own = [lead, *(name for name in table.schema.names if TOLD_WITH.get(name) == lead)]
        rows += f" LEFT JOIN ({_most(lead, own, grain)}) USING ({grain})"
        replaced += [f'if(most_{lead} IS NULL, "{one}", most_{lead}[\'{one}\']) AS "{one}"' for one in own]
    return f"SELECT * REPLACE ({', '.join(replaced)}) FROM {rows}" if replaced else f"SELECT * FROM {rows}"


_TIMES = {"size": "sum(size)::BIGINT", "first_seen_at": "min(first_seen_at)", "updated_at": "max(updated_at)"}
_OWN_RULES = ["ModalitiesInStudy", "patient_count", "PatientID", "IssuerOfPatientID"]


def _series(settings: CurationSettings) -> str:
    return _described(SERIES, _SERIES_GRAIN, {**_TIMES, "instance_count": "count(*)"}, settings)


def _studies(settings: CurationSettings) -> str:
    counts = {
        **_TIMES,
        "instance_count": "count(*)",
        "series_count": "count(DISTINCT SeriesInstanceUID)",
        **dict.fromkeys(("patient_count", "PatientID", "IssuerOfPatientID"), "NULL"),  # rules of their own
        "ModalitiesInStudy": "NULL::VARCHAR[]",
    }
    return _described(STUDY, "source, StudyInstanceUID", counts, settings)


def _hashed(rows: str, table: Table, without: Collection[str] = ()) -> str:
    names = [name for name in table.schema.names if name not in without]
    return f"SELECT study_key, hash({_listed(names)}) AS content FROM ({rows})"


_MODALITIES = """
    SELECT study_key, source, StudyInstanceUID, list(DISTINCT Modality ORDER BY Modality)
        FILTER (Modality IS NOT NULL) AS modalities
    FROM instance GROUP BY ALL
"""


def _said(column: str) -> str:
    """A text without control characters and space around it; NULL when nothing is left."""
    space = r"[\s\pZ\x85]*"
    plain = rf"regexp_replace({column}, '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]', '', 'g')"
    return rf"nullif(regexp_extract({plain}, '(?s)^{space}(.*?){space}$', 1), '')"


def _agree(column: str) -> str:
    one, other = (_said(f'{table}."{column}"') for table in ("report", "study"))
    return f"coalesce({one} = {other}, true)"


_LINKED_REPORTS = f"""(
    SELECT report.* REPLACE (
        coalesce(own.surviving_patient_id, anyone.surviving_patient_id, report.PatientID) AS PatientID,
        coalesce(
            if(own.PatientID IS NULL, anyone.surviving_patient_issuer, own.surviving_patient_issuer),
            report.IssuerOfPatientID
        ) AS IssuerOfPatientID
    )
    FROM diagnostic_report AS report
    LEFT JOIN patient_link AS own ON own.PatientID = {_said("report.PatientID")}
        AND own.IssuerOfPatientID = {_said("report.IssuerOfPatientID")}
    LEFT JOIN patient_link AS anyone ON anyone.PatientID = {_said("report.PatientID")}
        AND anyone.IssuerOfPatientID IS NULL
)"""
"""Reports with the patient that they are of by patient links."""

_CLEAR = f"""
-- one row per study whose instances name one patient, and none another
SELECT study_key, (source, StudyInstanceUID, id, issuer) AS content FROM (
    SELECT
        study_key, source, StudyInstanceUID, min(id) AS id, min(issuer) AS issuer,
        max(id) AS last_id, max(issuer) AS last_issuer
    FROM (SELECT *, {_said("PatientID")} AS id, {_said("IssuerOfPatientID")} AS issuer FROM instance)
    GROUP BY ALL
)
WHERE id = last_id AND issuer IS NOT DISTINCT FROM last_issuer
"""

_NO_INDEX = "(SELECT '' AS batch_id, '' AS study_key)"

RULES: tuple[StudyRule, ...] = (
    StudyRule("instance", "instance = newest versions in flat_metadata", ("instance", "flat_metadata", "overwritten"),
        _INSTANCES, _INSTANCES_THERE),
    StudyRule("series", "series = what its instances give", ("series", "instance"),
        _hashed(_series(CurationSettings()), SERIES), _hashed("FROM series", SERIES)),
    StudyRule("study", "study = what its instances give", ("study", "instance"),
        _hashed(_studies(CurationSettings()), STUDY, _OWN_RULES), _hashed("FROM study", STUDY, _OWN_RULES)),
    StudyRule("patients", "Studies of one patient = studies whose instances name one", ("study", "instance"),
        _CLEAR, "SELECT study_key, (source, StudyInstanceUID, "
        f"{_said('PatientID')}, {_said('IssuerOfPatientID')}) AS content FROM study WHERE patient_count = 1"),
    StudyRule("modalities", "ModalitiesInStudy = modalities of its instances", ("study", "instance"),
        f"SELECT study_key, coalesce(modalities, []) AS content FROM ({_MODALITIES})",
        "SELECT study_key, coalesce(ModalitiesInStudy, []) AS content FROM study"),
    StudyRule("series_geometry", "Geometry = series with images, their instances counted",
        ("series_geometry", "instance"),
        f"SELECT study_key, ({_SERIES_GRAIN}, count(*), max(updated_at)) AS content FROM instance "
        f"GROUP BY study_key, {_SERIES_GRAIN} HAVING count(*) FILTER (\"Rows\" >= 0 AND \"Columns\" >= 0) > 0",
        f"SELECT study_key, ({_SERIES_GRAIN}, instance_count, updated_at) AS content FROM series_geometry"),
    StudyRule("imaging_study", "FHIR ImagingStudy = studies, with series and instances counted",
        ("imaging_study", "study"),
        "SELECT study_key, (source, StudyInstanceUID, series_count, instance_count) AS content FROM study",
        "SELECT study_key, (source, StudyInstanceUID, json_array_length(resource, '$.series')::BIGINT, "
        "coalesce(list_sum([json_array_length(one) FOR one IN json_extract(resource, '$.series[*].instance')]), 0)"
        "::BIGINT) AS content FROM imaging_study WHERE NOT is_deleted"),
    StudyRule("sop_instances", "SOP Instance UIDs of objects of different content = those that are told",
        ("flat_metadata", "overwritten", "ingestion_errors"),
        f"SELECT study_key, uid AS content FROM ({_CLAIMED_TWICE})",
        f"SELECT study_key, uid AS content FROM ({_CLAIMED_TWICE}) WHERE list_has_any(objects, "
        "(SELECT list({'batch_id': batch_id, 'object_id': object_id}) FROM ingestion_errors "
        "WHERE code = 'SOP_INSTANCE_CONFLICT'))"),
    StudyRule("linked_reports", "Reports that are linked to a study = those of nobody else than its patient",
        ("diagnostic_report", "study", "patient_link"),
        "SELECT study_key, record_key AS content FROM diagnostic_report WHERE study_key IS NOT NULL",
        f"SELECT study_key, record_key AS content FROM {_LINKED_REPORTS} AS report JOIN study USING (study_key) "
        f"WHERE patient_count <= 1 AND {' AND '.join(map(_agree, ('PatientID', 'IssuerOfPatientID')))}"),
    StudyRule("image_occurrence", "OMOP rows = series", ("series", "image_occurrence_origin", "image_occurrence"),
        f"SELECT study_key, ({_SERIES_GRAIN}) AS content FROM series",
        f"SELECT study_key, ({_SERIES_GRAIN}) AS content FROM image_occurrence_origin "
        "LEFT JOIN image_occurrence USING (image_occurrence_id) "
        "WHERE image_study_UID = StudyInstanceUID AND image_series_UID = SeriesInstanceUID"),
)  # fmt: skip
"""Every rule, in the order of the flow."""

_CORRECTIONS = ("correction", "moved_study")
_CORRECTED = {
    rule.name: replace(rule, expected=_CORRECTED_INSTANCES, actual=_CORRECTED_THERE)
    for rule in RULES
    if rule.name == "instance"
}
"""Rules that are others in a lake that has corrections."""


def _chosen(rule: StudyRule, settings: CurationSettings) -> StudyRule:
    """A rule, as it is by the rule of the settings for conflicts."""
    if rule.name == "series":
        return replace(rule, expected=_hashed(_series(settings), SERIES))
    if rule.name == "study":
        return replace(rule, expected=_hashed(_studies(settings), STUDY, _OWN_RULES))
    return rule


def look(sound: Sound, closed: pa.Table, chosen: Sequence[str] | None, settings: CurationSettings) -> Iterator[Finding]:
    """What each rule finds. closed: batch_ids, read before anything else. settings: which of several values is shown.

    chosen: only studies that these batches touch. Raises LakeError, duckdb.Error.
    """
    found: dict[str, list[str]] = {rule.name: [] for rule in RULES}
    again: dict[str, set[str]] = {name: set() for name in _TOLD_BY_BATCHES}
    possible = [_chosen(rule, settings) for rule in RULES if sound.opens(*rule.tables)]
    # Tables before what they are made from, so that a rebuild that is seen has its metadata seen as well; the index
    # last, in which a batch is entered before it writes anything.
    order = ["diagnostic_report", "image_occurrence", "image_occurrence_origin", "imaging_study", "series_geometry",
             "study", "series", "instance", "ingestion_errors", "patient_link", "correction", "moved_study",
             "overwritten", "flat_metadata"]  # fmt: skip
    tables = {name for rule in possible for name in rule.tables}
    is_other = sound.opens(*_CORRECTIONS) and is_corrected(sound.lake)
    if is_other:
        tables |= {*_CORRECTIONS}
        possible = [_CORRECTED.get(rule.name, rule) for rule in possible]
    told_by_batches = _TOLD_BY_BATCHES | ({"instance": _CORRECTED_CONTENTS} if is_other else {})
    with sound.lake.cursor() as connection:
        sources = {name: sound.source(name) for name in order if name in tables}
        connection.register("closed", closed)
        index = sound.source("batch_study") if sound.opens("batch_study") else _NO_INDEX
        connection.execute(
            f"CREATE TEMP TABLE moving AS SELECT DISTINCT study_key FROM {index} ANTI JOIN closed USING (batch_id)"
        )
        if chosen is not None:
            connection.register("chosen", pa.table({"batch_id": pa.array(list(chosen), pa.string())}))
            connection.execute(
                f"CREATE TEMP TABLE wanted AS SELECT DISTINCT study_key FROM {index} SEMI JOIN chosen USING (batch_id)"
            )
        for low, high in _ranges(sound.lake.row_count("flat_metadata") if sound.opens("flat_metadata") else 0):
            _views(connection, sources, low, high, is_chosen=chosen is not None)
            for rule in possible:
                found[rule.name] += _differing(connection, rule)
            for name, sql in told_by_batches.items():
                if found[name]:
                    again[name].update(batch for (batch,) in connection.execute(sql).fetchall())
    looked = {rule.name for rule in possible}
    for rule in RULES:
        if rule.name in looked:
            keys = found[rule.name]
            batches = again.get(rule.name, ())
            yield Finding(rule.name, rule.description, len(keys), batches, keys, keys[:SHOWN])
        else:
            yield Finding(rule.name, rule.description, told="not looked at: a table cannot be opened", is_note=True)


def _ranges(rows: int) -> list[tuple[str, str]]:
    """Ranges of study_key, as many as the rows need: keys are hashes, so each range has as many of them."""
    parts = max(1, min(4_096, -(-rows // ROWS_AT_ONCE)))
    edges = [f"{(1 << 64) * part // parts:016x}" for part in range(parts)]
    return [*zip(["", *edges[1:]], [*edges[1:], "g"], strict=True)]


_WHOLE = ("overwritten", "ingestion_errors", "patient_link", *_CORRECTIONS)
"""Tables that are not looked at by ranges of studies."""

_RECEIVED = """
SELECT * FROM {flat} WHERE study_key >= '{low}' AND study_key < '{high}' OR study_key IN (
    SELECT study_key FROM moved_study WHERE target_key >= '{low}' AND target_key < '{high}'
)
"""
"""Rows of flat_metadata, as received, of which the studies of a range are made."""


def _views(
    connection: duckdb.DuckDBPyConnection, sources: dict[str, str], low: str, high: str, *, is_chosen: bool
) -> None:
    for name, source in sources.items():
        if name == "image_occurrence":
            continue
        if name in _WHOLE:
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {source}")
            continue
        wanted = " SEMI JOIN wanted USING (study_key)" if is_chosen else ""
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM "
            f"(SELECT * FROM {source} WHERE study_key >= '{low}' AND study_key < '{high}')"
            f"{wanted} ANTI JOIN moving USING (study_key)"
        )
    if "moved_study" in sources and "flat_metadata" in sources:
        received = _RECEIVED.format(flat=sources["flat_metadata"], low=low, high=high)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW flat_received AS {received}")
        wanted = " SEMI JOIN wanted USING (study_key)" if is_chosen else ""
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW flat_corrected AS SELECT * FROM "
            f"(FROM {corrected(_PLACED, 'correction', 'moved_study')} "
            f"WHERE study_key >= '{low}' AND study_key < '{high}'){wanted} ANTI JOIN moving USING (study_key)"
        )
    if "image_occurrence" in sources and "image_occurrence_origin" in sources:
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW image_occurrence AS SELECT * FROM {sources['image_occurrence']} SEMI JOIN "
            "(SELECT StudyInstanceUID AS image_study_UID FROM image_occurrence_origin) USING (image_study_UID)"
        )


def _differing(connection: duckdb.DuckDBPyConnection, rule: StudyRule) -> list[str]:
    rows = connection.execute(
        f"""
        SELECT DISTINCT study_key FROM (
            SELECT study_key FROM (
                SELECT study_key, content, 1 AS times FROM ({rule.expected})
                UNION ALL
                SELECT study_key, content, -1 AS times FROM ({rule.actual})
            ) GROUP BY study_key, content HAVING sum(times) <> 0
        ) ORDER BY study_key
        """
    ).fetchall()
    return [key for (key,) in rows]
