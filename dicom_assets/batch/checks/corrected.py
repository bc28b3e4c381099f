"""What corrections and patient links make of versions, found for the rules in another way than the hierarchy is made.

Belongs here: SQL of its own over `correction`: one join for each scope and windows instead of one join and aggregates,
links followed by recursion instead of looked up in patient_link. Does not belong here: the rules that compare with it
(`hierarchy_checks`, `parity_checks`, `verification.study_rules`), rules of corrections (`correction_checks`).
"""

from __future__ import annotations

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.moved_studies import any_in
from dicom_assets.lake.query import scan

_GRAIN = "source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"


def _clean(column: str) -> str:
    """What a text says: NULL when nothing is left without control characters and without space around it."""
    plain = rf"regexp_replace({column}, '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]', '', 'g')"
    return rf"nullif(regexp_replace({plain}, '^[\pZ\t\n\r\x85]+|[\pZ\t\n\r\x85]+$', '', 'g'), '')"


_SCOPES = (
    ("instance", "trim(SOPInstanceUID)"),
    ("series", "trim(SeriesInstanceUID)"),
    ("study", "trim(StudyInstanceUID)"),
    ("accession", _clean("AccessionNumber")),
    ("patient", _clean("PatientID")),
)
_WHAT = (
    ("patient", "said.PatientID IS NOT NULL OR said.IssuerOfPatientID IS NOT NULL"),
    ("accession", "said.AccessionNumber IS NOT NULL"),
    ("study", "said.StudyInstanceUID IS NOT NULL"),
)

_ABOUT = " UNION ALL ".join(
    f"""
    SELECT objects.batch_id, objects.object_id, {place} AS place, said
    FROM current_objects AS objects JOIN (SELECT said FROM sayings AS said) ON said.scope = '{scope}'
        AND said.key = {sql} AND coalesce(said.object_source, objects.source) = objects.source
        AND (said.key_issuer IS NULL OR said.key_issuer = {_clean("objects.IssuerOfPatientID")})
    """
    for place, (scope, sql) in enumerate(_SCOPES)
)

_FIRST = " UNION ALL ".join(
    f"""
    SELECT batch_id, object_id, '{what}' AS what, said FROM about WHERE {condition}
    QUALIFY row_number() OVER (
        PARTITION BY batch_id, object_id
        ORDER BY place, said.object_source IS NULL, said.key_issuer IS NULL, said.corrected_at, said.correction_key DESC
    ) = 1
    """
    for what, condition in _WHAT
)

LINKED = """
-- one row per identifier that objects have by corrections: where links lead from it
WITH RECURSIVE links AS (
    SELECT
        key, key_issuer, any_value(PatientID) AS id, any_value(IssuerOfPatientID) AS issuer,
        list(correction_key) AS names
    FROM sayings WHERE scope = 'patient_link' GROUP BY key, key_issuer
),
way AS (
    SELECT id AS first_id, issuer AS first_issuer, id, issuer, CAST([] AS VARCHAR[]) AS names, 0 AS steps
    FROM (SELECT DISTINCT id, issuer FROM told WHERE id IS NOT NULL)
    UNION ALL
    SELECT
        way.first_id, way.first_issuer, links.id, coalesce(links.issuer, way.issuer),
        list_concat(way.names, links.names), way.steps + 1
    FROM way JOIN links ON links.key = way.id AND (
        links.key_issuer = way.issuer OR links.key_issuer IS NULL AND NOT coalesce(list_contains(
            (SELECT list(key || chr(0) || key_issuer) FROM links WHERE key_issuer IS NOT NULL),
            way.id || chr(0) || way.issuer
        ), false)
    )
    WHERE way.steps <= (SELECT count(*) FROM links)
)
SELECT first_id, first_issuer, max_by(id, steps) AS id, max_by({'issuer': issuer}, steps)['issuer'] AS issuer,
    max_by(names, steps) AS names
FROM way GROUP BY ALL HAVING max(steps) > 0
"""


def is_corrected(lake: Lake) -> bool:
    """Whether the lake has corrections, in force or not."""
    return any_in(lake)


def corrected(versions: str, corrections: str, moves: str, studies: str = "", grain: str = _GRAIN) -> str:
    """SQL for versions as what they are: those of each instance that is there, with its corrected attributes.

    versions: rows of flat_metadata with `takes_part`, of the studies as received; afterwards it holds for the current
    version alone. corrections, moves: SQL for the tables correction and moved_study. studies: SQL that limits rows to
    studies that are wanted, by study_key.
    """
    return f"""(
    WITH sayings AS (SELECT * FROM {corrections} WHERE state = 'in_force'),
    marked AS (SELECT *, (version_at, sequence, object_id, ingested_at) AS own_version FROM {versions}),
    there AS (
        SELECT {grain}, max(own_version) FILTER (takes_part) AS last_version
        FROM marked GROUP BY ALL
        HAVING max(own_version) FILTER (takes_part) = max(own_version) FILTER (takes_part AND operation = 'upsert')
    ),
    current_objects AS (
        SELECT marked.batch_id, marked.object_id, {grain}, study_key, AccessionNumber, PatientID, IssuerOfPatientID
        FROM marked JOIN there USING ({grain}) WHERE own_version = last_version AND takes_part
    ),
    about AS ({_ABOUT}),
    firsts AS ({_FIRST}),
    told AS (
        SELECT
            objects.*,
            CASE WHEN p.said.PatientID IS NULL THEN objects.PatientID ELSE p.said.PatientID END AS new_id,
            CASE WHEN p.said.IssuerOfPatientID IS NULL THEN objects.IssuerOfPatientID ELSE p.said.IssuerOfPatientID END
                AS new_issuer,
            CASE WHEN a.said IS NULL THEN objects.AccessionNumber ELSE a.said.AccessionNumber END AS new_accession,
            CASE WHEN s.said IS NULL THEN objects.StudyInstanceUID ELSE s.said.StudyInstanceUID END AS new_study,
            list_filter([
                if((new_id, new_issuer) IS DISTINCT FROM (objects.PatientID, objects.IssuerOfPatientID),
                    p.said.correction_key, NULL),
                if(new_accession IS DISTINCT FROM objects.AccessionNumber, a.said.correction_key, NULL),
                if(new_study <> objects.StudyInstanceUID, s.said.correction_key, NULL)
            ], lambda name: name IS NOT NULL) AS own_names,
            {_clean("new_id")} AS id, {_clean("new_issuer")} AS issuer
        FROM current_objects AS objects
        LEFT JOIN (FROM firsts WHERE what = 'patient') AS p USING (batch_id, object_id)
        LEFT JOIN (FROM firsts WHERE what = 'accession') AS a USING (batch_id, object_id)
        LEFT JOIN (FROM firsts WHERE what = 'study') AS s USING (batch_id, object_id)
    ),
    linked AS ({LINKED}),
    true_objects AS (
        SELECT
            told.source, told.StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID,
            coalesce(linked.id, new_id) AS new_id,
            CASE WHEN linked.id IS NULL THEN new_issuer ELSE linked.issuer END AS new_issuer,
            new_accession, new_study,
            CASE WHEN new_study = told.StudyInstanceUID THEN told.study_key ELSE moves.target_key END AS new_key,
            list_sort(list_distinct(list_concat(own_names, coalesce(linked.names, [])))) AS all_names
        FROM told
        LEFT JOIN linked ON first_id = told.id AND first_issuer IS NOT DISTINCT FROM told.issuer
        LEFT JOIN (SELECT DISTINCT study_key, StudyInstanceUID, target_key FROM {moves}) AS moves
            ON moves.study_key = told.study_key AND moves.StudyInstanceUID = new_study
    )
    SELECT
        marked.* EXCLUDE (own_version) REPLACE (
            new_id AS PatientID, new_issuer AS IssuerOfPatientID, new_accession AS AccessionNumber,
            new_study AS StudyInstanceUID, new_key AS study_key,
            takes_part AND own_version = last_version AS takes_part
        ),
        if(len(all_names) > 0, all_names, NULL) AS corrections,
        if(len(all_names) > 0, marked.PatientID, NULL) AS received_patient_id,
        if(len(all_names) > 0, marked.IssuerOfPatientID, NULL) AS received_patient_issuer,
        if(len(all_names) > 0, marked.AccessionNumber, NULL) AS received_accession_number,
        if(len(all_names) > 0, marked.StudyInstanceUID, NULL) AS received_study_instance_uid
    FROM marked
    JOIN there USING ({grain})
    JOIN true_objects USING ({grain})
    {f"WHERE new_key IN ({studies})" if studies else ""}
    )"""


def tables_of(lake: Lake) -> tuple[str, str]:
    """SQL for the tables correction and moved_study, as `corrected` wants them."""
    return scan(lake, "correction"), scan(lake, "moved_study")
