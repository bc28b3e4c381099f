"""Whose a study is, and which clinical records are of the same patient: the one decision, in SQL.

Belongs here: what counts as one patient. The hierarchy (`patient_count`), the view study_clinical, FHIR, OMOP, reports
and mapping_coverage all ask here; the rules of the checks have SQL of their own. Does not belong here: resources and
rows (`dicom_assets.fhir`, `dicom_assets.omop`), which reports name which study (`fhir.diagnostic_report`).

What is missing does not contradict: a study whose objects name one PatientID, or none, is of that patient; an issuer
that is not told beside one that is, is that one. Two ids contradict, and so do two issuers; then the study is nobody's,
and nothing is joined to it. Empty, blank, and without anything but control characters is missing.
"""

from __future__ import annotations

from collections.abc import Collection

CONTROL = "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 127]))
_SPACE = "".join(map(chr, [9, 10, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F]))
SPACES = _SPACE + chr(0x3000)
"""What `clean` leaves out anywhere, and what it leaves out around a text."""


def clean(column: str) -> str:
    """SQL for a text without control characters and surrounding space, NULL when nothing is left."""
    slow = f"trim(translate({column}, '{CONTROL}', ''), '{SPACES}')"  # ten times as slow, and hardly ever needed
    return f"nullif(CASE WHEN regexp_matches({column}, '[^ -~]') THEN {slow} ELSE trim({column}) END, '')"


def patients_named(objects: str, grain: str, newest: str, frequent: Collection[str] = ()) -> str:
    """SQL for one row per `grain`: patient_count, and PatientID and IssuerOfPatientID as its objects tell them.

    objects: a relation with the columns of grain, both identifiers and newest, by which the newest value counts.
    frequent: of the two those of which the value counts that most objects tell, of equals the newest. patient_count: 0
    when no object names a patient; above 1 the objects contradict each other.
    """
    orders = dict.fromkeys(("PatientID", "IssuerOfPatientID"), "newest")
    counted = ""
    for name, said in (("PatientID", "id"), ("IssuerOfPatientID", "issuer")):
        if name in frequent:
            orders[name] = f"{{'objects': {said}_objects, 'newest': newest}}"
            counted += f", sum(objects) OVER (PARTITION BY {grain}, {said}) AS {said}_objects"
    return f"""
    SELECT
        {grain},
        arg_max(PatientID, {orders["PatientID"]}) FILTER (id IS NOT NULL) AS PatientID,
        arg_max(IssuerOfPatientID, {orders["IssuerOfPatientID"]}) FILTER (issuer IS NOT NULL) AS IssuerOfPatientID,
        -- ids with each of their issuers, or without any; issuers alone tell of nobody, and contradict each other
        CASE WHEN count(id) = 0 THEN 0 ELSE greatest(
            count(DISTINCT (id, issuer)) FILTER (id IS NOT NULL AND issuer IS NOT NULL)
                + count(DISTINCT id) - count(DISTINCT id) FILTER (issuer IS NOT NULL),
            count(DISTINCT issuer)
        ) END AS patient_count
    FROM (
        SELECT *, {clean("PatientID")} AS id, {clean("IssuerOfPatientID")} AS issuer{counted}
        FROM (  -- what is written, before it is cleaned: there are fewer patients than objects
            SELECT {grain}, PatientID, IssuerOfPatientID, max({newest}) AS newest, count(*) AS objects
            FROM {objects}
            GROUP BY ALL
        )
    )
    GROUP BY {grain}
    """


_IDENTIFIED = f"coalesce(patient_count, 0) <= 1 AND {clean('PatientID')} IS NOT NULL"

_STATES = f"WHEN patient_count > 1 THEN 'conflict' WHEN {clean('PatientID')} IS NULL THEN 'missing'"
SUBJECT_STATE = f"CASE {_STATES} ELSE 'identified' END"
"""What a row of `study` says of its patient: identified, missing or conflict."""

_ID = f"CASE WHEN {_IDENTIFIED} THEN {clean('PatientID')} END"
_ISSUER = f"CASE WHEN {_IDENTIFIED} THEN {clean('IssuerOfPatientID')} END"


def subjects(studies: str = "study") -> str:
    """SQL for rows of `study` with subject_state, and the subject in PatientID and IssuerOfPatientID or NULL there."""
    return f"""(
    SELECT
        * REPLACE ({_ID} AS PatientID, {_ISSUER} AS IssuerOfPatientID, {clean("AccessionNumber")} AS AccessionNumber),
        {SUBJECT_STATE} AS subject_state
    FROM {studies}
    )"""


PATIENTS = f"""
-- one row per patient that studies name, with how many do; without id and issuer those of no one known patient
SELECT {_ID} AS id, {_ISSUER} AS issuer, sum(studies)::BIGINT AS studies
FROM (
    -- what is written, before it is cleaned: there are fewer patients than studies
    SELECT PatientID, IssuerOfPatientID, least(patient_count, 2) AS patient_count, count(*) AS studies
    FROM study
    GROUP BY ALL
)
GROUP BY ALL
"""

SURVIVING_ID = "coalesce(own_link.surviving_patient_id, any_link.surviving_patient_id, {id})"
SURVIVING_ISSUER = (
    "CASE WHEN own_link.PatientID IS NOT NULL THEN coalesce(own_link.surviving_patient_issuer, issuer) "
    "WHEN any_link.PatientID IS NOT NULL THEN coalesce(any_link.surviving_patient_issuer, issuer) ELSE {issuer} END"
)
LINKS = """
LEFT JOIN patient_link AS own_link ON own_link.PatientID = id AND own_link.IssuerOfPatientID = issuer
LEFT JOIN patient_link AS any_link ON any_link.PatientID = id AND any_link.IssuerOfPatientID IS NULL
"""
"""Joins for the identifier that survives, and SQL for it: by the link of its issuer, else by that of any issuer, else
what stands in `{id}` and `{issuer}`. The relation before has id and issuer, cleaned."""


def persons(rows: str) -> str:
    """SQL for rows with PatientID and IssuerOfPatientID, with id and issuer of the person by patient links."""
    return f"""(
    SELECT
        rows.* EXCLUDE (id, issuer),
        {SURVIVING_ID.format(id="id")} AS id, {SURVIVING_ISSUER.format(issuer="issuer")} AS issuer
    FROM (
        SELECT *, {clean("PatientID")} AS id, {clean("IssuerOfPatientID")} AS issuer FROM {rows}
    ) AS rows {LINKS}
    )"""


RECORDED = f"""
-- one row per person that clinical records name
SELECT DISTINCT id, issuer
FROM {persons("(SELECT DISTINCT PatientID, IssuerOfPatientID FROM clinical)")}
WHERE id IS NOT NULL
"""


def same_patient(one: str, other: str, issuers: str) -> str:
    """SQL for whether two identifiers are of one patient.

    one, other: relations with id and issuer. issuers: one that has, for an id, `known`: how many issuers it has in the
    lake. An identifier without an issuer fits one that has one only while nobody else has issued the same.
    """
    return (
        f"{one}.id = {other}.id AND ({one}.issuer IS NOT DISTINCT FROM {other}.issuer "
        f"OR (({one}.issuer IS NULL OR {other}.issuer IS NULL) AND coalesce({issuers}.known, 0) <= 1))"
    )


def issuers_known(*patients: str) -> str:
    """SQL for one row per id that has issuers: how many are `known`. patients: relations with id and issuer."""
    listed = " UNION ALL ".join(f"SELECT id, issuer FROM {one} WHERE issuer IS NOT NULL" for one in patients)
    return f"(SELECT id, count(DISTINCT issuer) AS known FROM ({listed}) WHERE id IS NOT NULL GROUP BY id)"


_IMAGED = f"(SELECT {_ID} AS id, {_ISSUER} AS issuer FROM study)"
_NAMED = persons("(SELECT DISTINCT PatientID, IssuerOfPatientID FROM clinical)")


def study_records(records: str, columns: str) -> str:
    """SQL for one row per study and record of its patient; a study without a patient, or of several, joins nothing.

    records: a relation with PatientID and IssuerOfPatientID. columns: of it, as SQL over `record`.
    """
    return f"""
SELECT
    study.source, study.StudyInstanceUID, study.study_key, study.id AS PatientID, study.issuer AS IssuerOfPatientID,
    study.StudyDate, study.StudyDescription, study.ModalitiesInStudy, study.series_count, study.instance_count,
    {columns}
FROM (SELECT *, {_ID} AS id, {_ISSUER} AS issuer FROM study) AS study
JOIN {persons(records)} AS record USING (id)
LEFT JOIN {issuers_known(_IMAGED, _NAMED)} AS issuers USING (id)
WHERE {same_patient("study", "record", "issuers")}
"""


STUDY_CLINICAL = study_records("clinical", "record.record_type, record.record_key, record.record, record.record_values")
"""The view study_clinical, over study, clinical and patient_link."""
