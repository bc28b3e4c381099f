"""What current instances tell of what they belong to: SQL from instances to values, and from values to conflicts.

Belongs here: finding the values of an attribute, counting them, choosing among a patient's. Does not belong here: which
studies are looked at, and publishing (`conflicts`).

Instances that say the same are put together first: of a series of hundreds of instances that is one row in most cases,
and all that follows costs as much as there are different rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_assets.curation.belonging import BELONGINGS, Owner
from dicom_assets.lake.significance import significant
from dicom_assets.schema.attributes import ATTRIBUTES

MULTIPLE = {attribute.keyword for attribute in ATTRIBUTES if attribute.multiple}
GRAINS = {
    Owner.STUDY: ("StudyInstanceUID",),
    Owner.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    Owner.FRAME_OF_REFERENCE: ("StudyInstanceUID", "FrameOfReferenceUID"),
}
"""By owner, what names one; a frame of reference is looked at within a study."""

COLUMNS = [one.keyword for one in BELONGINGS]
INSTANCE_COLUMNS = (
    "source", "study_key", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "first_seen_at", "updated_at",
    "version_at", "sequence", "object_id", *COLUMNS,
)  # fmt: skip
"""Columns of `instance` that are looked at."""
_NEWEST = "{'at': version_at, 'number': sequence, 'name': object_id}"


def text(column: str) -> str:
    """SQL for a value as a conflict shows it."""
    return f"array_to_string(\"{column}\", '\\')" if column in MULTIPLE else f'"{column}"::VARCHAR'


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


SAME = f"""
-- one row per series and different set of values, with how many instances say it
SELECT
    source, study_key, StudyInstanceUID, SeriesInstanceUID, {_listed(COLUMNS)},
    count(*) AS objects, min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at, max({_NEWEST}) AS newest
FROM instance SEMI JOIN wanted USING (StudyInstanceUID)
GROUP BY ALL
"""


def _each(attributes: Sequence[str]) -> str:
    """SQL for the values of some attributes, one structure each."""
    return ", ".join(
        f"{{'attribute': '{name}', 'value': {text(name)}, 'said': {significant(name)}}}" for name in attributes
    )


def _told(owner: Owner, attributes: Sequence[str]) -> str:
    """SQL for one row per owner, attribute, value and source."""
    grain = ", ".join(GRAINS[owner])
    return f"""
SELECT
    {grain}, attribute, said, source, arg_max(value, newest) AS value, sum(objects)::BIGINT AS objects,
    min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at, max(newest) AS newest,
    list(DISTINCT study_key) AS study_keys
FROM (
    SELECT * EXCLUDE (one), unnest(one)
    FROM (
        SELECT {grain}, source, study_key, objects, first_seen_at, updated_at, newest, unnest([{_each(attributes)}])
            AS one
        FROM same SEMI JOIN doubtful USING ({grain})
    )
)
WHERE said IS NOT NULL
GROUP BY ALL
"""


def conflicts(owner: Owner, attributes: Sequence[str], *, choices: bool) -> str:
    """SQL for one row per owner and attribute with several values. Tables: same, doubtful.

    attributes: those that are written in two ways. Of all of them the statement would cost more to set up than to run.
    choices: whether to say of all instances of the owner which source tells what, with the newest version of each, for
    whoever looks for what is shown.
    """
    return _summed(_told(owner, attributes), ", ".join(GRAINS[owner]), choices=choices)


def utc(time: str) -> str:
    """SQL for a time without its zone, in UTC: to hand one over with its zone, DuckDB asks Python's pytz, twice."""
    return f"({time} AT TIME ZONE 'UTC')"


def _summed(told: str, grain: str, *, choices: bool) -> str:
    listed = ", list({'sources': sources}) AS choices" if choices else ""
    return f"""
SELECT
    {grain}, attribute, list_sort(list_distinct(flatten(list(study_keys)))) AS study_keys,
    count(*) AS value_count,
    list({{'value': value, 'objects': objects, 'first': {utc("first_seen_at")}, 'last': {utc("updated_at")}}}
        ORDER BY objects DESC, value, said) AS told{listed}
FROM (
    SELECT
        {grain}, attribute, said, arg_max(value, newest) AS value, sum(objects)::BIGINT AS objects,
        min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at, flatten(list(study_keys)) AS study_keys,
        list({{'source': source, 'objects': objects, 'value': value, 'at': {utc("newest.at")}, 'number': newest.number,
            'name': newest.name}}) AS sources
    FROM ({told})
    GROUP BY {grain}, attribute, said
)
GROUP BY {grain}, attribute
HAVING count(*) > 1
"""


def patient_values(attributes: Sequence[str]) -> str:
    """SQL for one row per study, patient, attribute and value. Tables: same, whose. attributes: those that are said."""
    return f"""
SELECT
    study_key, source, patient_key, arg_max(id, newest) AS PatientID, any_value(issuer) AS IssuerOfPatientID,
    any_value(StudyInstanceUID) AS StudyInstanceUID, attribute, said, arg_max(value, newest) AS value,
    sum(objects)::BIGINT AS objects, min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at,
    max(newest).at AS version_at, max(newest).number AS sequence, max(newest).name AS object_id
FROM (
    SELECT * EXCLUDE (one), unnest(one)
    FROM (
        SELECT
            same.study_key, same.source, patient_key, id, issuer, StudyInstanceUID, objects, first_seen_at, updated_at,
            newest, unnest([{_each(attributes)}]) AS one
        FROM same JOIN whose ON whose.study_key = same.study_key
            AND whose.PatientID IS NOT DISTINCT FROM same.PatientID
            AND whose.IssuerOfPatientID IS NOT DISTINCT FROM same.IssuerOfPatientID
    )
)
WHERE said IS NOT NULL
GROUP BY study_key, source, patient_key, attribute, said
"""


_TOLD_OF_PATIENTS = f"""
    SELECT patient_key, attribute, said, source, arg_max(value, {_NEWEST}) AS value, sum(objects)::BIGINT AS objects,
        min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at, max({_NEWEST}) AS newest,
        list(DISTINCT study_key) AS study_keys
    FROM patient_values
    GROUP BY patient_key, attribute, said, source
"""

CONTRADICTED = """
-- patients of whom something is said differently
SELECT DISTINCT patient_key FROM {patient_values} GROUP BY patient_key, attribute HAVING min(said) <> max(said)
"""

PATIENT_CONFLICTS = f"""
-- one row per patient and attribute with several values. Tables: patient_values, of the contradicted
SELECT * FROM ({_summed(_TOLD_OF_PATIENTS, "patient_key", choices=True)})
JOIN (
    SELECT patient_key, arg_max({{'id': PatientID, 'issuer': IssuerOfPatientID, 'study': StudyInstanceUID}}, {_NEWEST})
        AS owner
    FROM patient_values GROUP BY patient_key
) USING (patient_key)
"""

UIDS = {"SeriesInstanceUID": "StudyInstanceUID", "SOPInstanceUID": "SeriesInstanceUID"}
"""By UID that can stand under several parents, which of them is the parent. A series that stands in two studies is told
once, and not once more for each of its instances."""


def uid_conflicts(uid: str) -> str:
    """SQL for one row per UID under several parents, with them. Tables: instance, in UIDs and times."""
    parent = UIDS[uid]
    return f"""
SELECT
    {uid}, list_sort(list_distinct(flatten(list(study_keys)))) AS study_keys, count(*) AS value_count,
    list({{'value': {parent}, 'objects': objects, 'first': {utc("first_seen_at")}, 'last': {utc("updated_at")}}}
        ORDER BY objects DESC, {parent}) AS told
FROM (
    SELECT {uid}, {parent}, list(DISTINCT study_key) AS study_keys, count(*) AS objects,
        min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at
    FROM instance
    SEMI JOIN (SELECT {uid} FROM instance GROUP BY {uid} HAVING min({parent}) <> max({parent})) AS doubtful
        USING ({uid})
    GROUP BY {uid}, {parent}
)
GROUP BY {uid}
"""
