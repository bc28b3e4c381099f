"""What a study says of its patient and its accession number, in SQL over `study`.

Belongs here: the rule by which `imaging_study` fills these columns, for those who look through all studies: `study` has
a fraction of its files and no resources. Does not belong here: resources (`dicom_assets.fhir`, where a test compares
the two).
"""

from __future__ import annotations

_CONTROL = "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 127]))
_SPACE = "".join(map(chr, [9, 10, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F]))
_SPACES = _SPACE + chr(0x3000)


def _text(column: str) -> str:
    """A text without control characters and surrounding space, NULL when nothing is left."""
    name = f'"{column}"'
    slow = f"trim(translate({name}, '{_CONTROL}', ''), '{_SPACES}')"  # ten times as slow, and hardly ever needed
    return f"nullif(CASE WHEN regexp_matches({name}, '[^ -~]') THEN {slow} ELSE trim({name}) END, '')"


_IDENTIFIED = f"coalesce(patient_count, 0) <= 1 AND {_text('PatientID')} IS NOT NULL"

SUBJECT_STATE = (
    f"CASE WHEN patient_count > 1 THEN 'conflict' WHEN {_text('PatientID')} IS NULL THEN 'missing' "
    "ELSE 'identified' END"
)
"""What a row of `study` says of its patient: identified, missing or conflict."""

SUBJECTS = f"""
-- one row per study: its subject and accession number as imaging_study has them
SELECT
    study_key, source, StudyInstanceUID,
    CASE WHEN {_IDENTIFIED} THEN {_text("PatientID")} END AS PatientID,
    CASE WHEN {_IDENTIFIED} THEN {_text("IssuerOfPatientID")} END AS IssuerOfPatientID,
    {SUBJECT_STATE} AS subject_state,
    {_text("AccessionNumber")} AS AccessionNumber
FROM study
"""

PATIENTS = f"""
-- one row per patient that studies name, with how many do; without id and issuer those of no one known patient
SELECT
    CASE WHEN {_IDENTIFIED} THEN {_text("PatientID")} END AS id,
    CASE WHEN {_IDENTIFIED} THEN {_text("IssuerOfPatientID")} END AS issuer,
    sum(studies)::BIGINT AS studies
FROM (
    -- what is written, before it is cleaned: there are fewer patients than studies
    SELECT PatientID, IssuerOfPatientID, least(patient_count, 2) AS patient_count, count(*) AS studies
    FROM study
    GROUP BY ALL
)
GROUP BY ALL
"""
