"""What corrections and patient links in force make of objects, in SQL.

Belongs here: which correction counts for an object, and what it then is. Does not belong here: which corrections are
in force (`dicom_assets.batch.corrections`), to which studies objects are moved (`moves`), the hierarchy (`hierarchy`).

Of the corrections that are about an object the narrowest counts: of its instance before that of its series, its study,
its accession, its patient; of those one that names the source before one for all, then one that names the issuer. For
each of patient (PatientID with issuer), accession and study one correction counts, and it is looked up by what the
object itself says. Patient links are followed from the PatientID that comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_assets.lake.subjects import LINKS, SURVIVING_ID, SURVIVING_ISSUER, clean
from dicom_assets.schema.correction_tables import CORRECTED_BY, RECEIVED, Scope
from dicom_assets.schema.registry import CORRECTION, MOVED_STUDY, PATIENT_LINK

TABLES = (CORRECTION.name, PATIENT_LINK.name, MOVED_STUDY.name)

KEYS = {
    Scope.INSTANCE: "trim(SOPInstanceUID)",
    Scope.SERIES: "trim(SeriesInstanceUID)",
    Scope.STUDY: "trim(StudyInstanceUID)",
    Scope.ACCESSION: clean("AccessionNumber"),
    Scope.PATIENT: clean("PatientID"),
}
"""By scope, narrowest first, SQL for what an object is found by."""

_RANKED = " ".join(f"WHEN '{scope}' THEN {number}" for number, scope in enumerate(reversed(KEYS)))

_KEYED = ", ".join(f"{{'scope': '{scope}', 'key': {sql}}}" for scope, sql in KEYS.items())


def chosen(objects: str) -> str:
    """SQL for what objects are corrected by.

    objects: a relation with batch_id, object_id, source, UIDs, AccessionNumber, PatientID, IssuerOfPatientID.
    """
    return f"""
-- one row per object that corrections in force are about: by what it is corrected
SELECT
    batch_id, object_id,
    arg_max(said, rank) FILTER (said.id IS NOT NULL OR said.issuer IS NOT NULL) AS patient,
    arg_max(said, rank) FILTER (said.accession IS NOT NULL) AS accession,
    arg_max(said, rank) FILTER (said.study IS NOT NULL) AS study
FROM (
    SELECT
        keyed.batch_id, keyed.object_id,
        {{'id': force.PatientID, 'issuer': force.IssuerOfPatientID, 'accession': force.AccessionNumber,
          'study': force.StudyInstanceUID, 'name': force.correction_key}} AS said,
        {{'scope': CASE force.scope {_RANKED} END, 'source': force.object_source IS NOT NULL,
          'issuer': force.key_issuer IS NOT NULL, 'early': -epoch_us(force.corrected_at),
          'name': force.correction_key}} AS rank
    FROM (
        SELECT batch_id, object_id, source, issuer, unnest(keyed, recursive := true)
        FROM (
            SELECT batch_id, object_id, source, {clean("IssuerOfPatientID")} AS issuer, unnest([{_KEYED}]) AS keyed
            FROM {objects}
        )
    ) AS keyed
    JOIN (FROM {CORRECTION.name} WHERE state = 'in_force') AS force ON force.scope = keyed.scope
        AND force.key = keyed.key
        AND (force.object_source IS NULL OR force.object_source = keyed.source)
        AND (force.key_issuer IS NULL OR force.key_issuer = keyed.issuer)
)
GROUP BY batch_id, object_id
"""


def _written(objects: str) -> str:
    return f"""
SELECT
    objects.*,
    coalesce(chosen.patient.id, PatientID) AS true_id,
    coalesce(chosen.patient.issuer, IssuerOfPatientID) AS true_issuer,
    coalesce(chosen.accession.accession, AccessionNumber) AS true_accession,
    coalesce(chosen.study.study, StudyInstanceUID) AS true_study,
    list_filter([
        CASE WHEN true_id IS DISTINCT FROM PatientID OR true_issuer IS DISTINCT FROM IssuerOfPatientID
            THEN chosen.patient.name END,
        CASE WHEN true_accession IS DISTINCT FROM AccessionNumber THEN chosen.accession.name END,
        CASE WHEN true_study IS DISTINCT FROM StudyInstanceUID THEN chosen.study.name END
    ], lambda one: one IS NOT NULL) AS named,
    {clean("true_id")} AS id, {clean("true_issuer")} AS issuer
FROM {objects} AS objects
LEFT JOIN ({chosen(objects)}) AS chosen USING (batch_id, object_id)
"""


def applied(objects: str) -> str:
    """SQL for what objects are.

    objects: as in `chosen`, with study_key; what else they have is passed on. Tables: those of TABLES.
    """
    received = ", ".join(f"CASE WHEN names <> [] THEN own.{word} END AS {name}" for name, word in RECEIVED.items())
    told = ", ".join(f"'{keyword}': written.\"{keyword}\"" for keyword in RECEIVED.values())
    return f"""
-- one row per object: what it is, and what it says itself where that is something else
SELECT * EXCLUDE (names, own), nullif(list_sort(list_distinct(names)), []) AS {CORRECTED_BY}, {received}
FROM (
    SELECT
        written.* EXCLUDE (
            PatientID, IssuerOfPatientID, AccessionNumber, StudyInstanceUID, study_key,
            true_id, true_issuer, true_accession, true_study, named, id, issuer
        ),
        {SURVIVING_ID.format(id="true_id")} AS PatientID,
        {SURVIVING_ISSUER.format(issuer="true_issuer")} AS IssuerOfPatientID,
        true_accession AS AccessionNumber,
        true_study AS StudyInstanceUID,
        coalesce(moved.target_key, written.study_key) AS study_key,
        {{{told}}} AS own,
        list_concat(named, coalesce(own_link.corrections, any_link.corrections, [])) AS names
    FROM ({_written(objects)}) AS written
    {LINKS}
    LEFT JOIN (SELECT DISTINCT study_key, StudyInstanceUID, target_key FROM {MOVED_STUDY.name}) AS moved
        ON moved.study_key = written.study_key AND moved.StudyInstanceUID = written.true_study
        AND written.true_study IS DISTINCT FROM written.StudyInstanceUID
)
"""


def moves(objects: str) -> str:
    """SQL for where corrections move objects; objects: as in `chosen`, with study_key."""
    return f"""
-- one row per study as received and study to which corrections move objects of it
SELECT DISTINCT objects.study_key, objects.source, chosen.study.study AS StudyInstanceUID
FROM {objects} AS objects JOIN ({chosen(objects)}) AS chosen USING (batch_id, object_id)
WHERE chosen.study.study IS DISTINCT FROM StudyInstanceUID AND chosen.study.study IS NOT NULL
"""


OBJECT_COLUMNS: Sequence[str] = (
    *("batch_id", "object_id", "source", "study_key", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("AccessionNumber", "PatientID", "IssuerOfPatientID"),
)
"""Columns of flat_metadata that corrections look at."""
