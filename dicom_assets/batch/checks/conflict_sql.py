"""What instances say differently, by SQL that does not share the code that makes the table of conflicts.

Belongs here: queries over relations of instances, for the rules of a batch and for `verify`. Does not belong here:
which rows are looked at (`conflict_checks`, `verification.conflict_rules`).

The table puts instances together that say the same and looks at what is left; here every value of every instance is a
row of its own, and rows are counted as they are written before it is asked what they say. Compared are values one by
one: whose, of which attribute, which, how many instances say it, since when, whether it is shown. Which attribute
belongs to whom comes from the one list, which both must take as given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dicom_assets.batch.checks.hierarchy_checks import clean
from dicom_assets.curation.belonging import Owner, of
from dicom_assets.schema.attributes import ATTRIBUTES, TOLD_WITH
from dicom_assets.settings import CurationSettings

_VRS = {one.keyword: one.vr for one in ATTRIBUTES} | dict.fromkeys(
    ("patient_ideographic_name", "patient_phonetic_name"), "PN"
)
MULTIPLE = {one.keyword for one in ATTRIBUTES if one.multiple}
NEWEST = "(version_at, sequence, object_id)"
GRAINS: Mapping[Owner, Sequence[str]] = {
    Owner.STUDY: ("StudyInstanceUID",),
    Owner.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    Owner.FRAME_OF_REFERENCE: ("StudyInstanceUID", "FrameOfReferenceUID"),
}


def _as_text(name: str) -> str:
    return f"array_to_string(\"{name}\", '\\')" if name in MULTIPLE else f'CAST("{name}" AS VARCHAR)'


def _names(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "NULL"


def _name_said(value: str) -> str:
    """SQL for what a name says, component by component."""
    parts = f"[coalesce({clean('part')}, '') FOR part IN string_split({value}, '^')]"
    return f"nullif(rtrim(array_to_string({parts}, '^'), '^'), '')"


def said(attribute: str, value: str, among: Collection[str] = tuple(_VRS)) -> str:
    """SQL for what a value says, by the name of its attribute in a column; among: which it can be."""
    names = [name for name in among if _VRS.get(name) == "PN"]
    times = [name for name in among if _VRS.get(name) == "TM"]
    whole = f"[{{}} FOR whole IN string_split({value}, '\\')]"
    listed = {
        "named": _name_said("whole"),
        "texts": clean("whole"),
    }
    several = {one: f"nullif(array_to_string({whole.format(sql)}, '\\'), '')" for one, sql in listed.items()}
    forms = {
        _name_said(value): [name for name in names if name not in MULTIPLE],
        several["named"]: [name for name in names if name in MULTIPLE],
        several["texts"]: MULTIPLE.intersection(among) - {*names},
        f"CASE WHEN contains({value}, '.') THEN rtrim(rtrim({value}, '0'), '.') ELSE {clean(value)} END": times,
    }
    cases = " ".join(f"WHEN {attribute} IN ({_names(own)}) THEN {form}" for form, own in forms.items() if own)
    return f"CASE {cases} ELSE {clean(value)} END" if cases else clean(value)


def _ranked(settings: CurationSettings, source: str = "source") -> str:
    """SQL for the place of a source in the settings, the first the largest; 0 for all where none are named."""
    places = " + ".join(
        f"({source} = {_text(name)})::INTEGER * {len(settings.source_rank) - at}"
        for at, name in enumerate(settings.source_rank)
    )
    return places or "0"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _frequent(settings: CurationSettings, attribute: str) -> str:
    """SQL for whether the value of most instances is shown of an attribute, whose name stands in a column."""
    own = {**settings.attribute_rules}
    own |= {name: own[lead] for name, lead in TOLD_WITH.items() if lead in own}
    yes, no = ([name for name, rule in own.items() if (rule == "most_frequent") is is_so] for is_so in (True, False))
    default = "true" if settings.conflict_rule == "most_frequent" else "false"
    return f"CASE WHEN {attribute} IN ({_names(yes)}) THEN true WHEN {attribute} IN ({_names(no)}) THEN false " \
           f"ELSE {default} END"  # fmt: skip


UNSHOWN = set(TOLD_WITH)
"""Attributes of which the shown value follows from another attribute: `series` and `study` have rules for them."""


def told(owner: Owner, instances: str, settings: CurationSettings, attributes: Collection[str] = ()) -> str:
    """SQL for the conflicts of studies, series or frames of reference, a row for each value of each.

    instances: a relation that has all instances of the studies that are looked at, with all of their columns.
    attributes: those that may have conflicts; all of them, when none is given.
    """
    grain = ", ".join(GRAINS[owner])
    attributes = [name for name in of(owner) if name in attributes] or of(owner)
    names = ", ".join(f'{_as_text(name)} AS "{name}"' for name in attributes)
    kept = ["study_key", "source", "first_seen_at", "updated_at", "version_at", "sequence", "object_id"]
    listed = ", ".join(f'"{name}"' for name in attributes)
    # of a study or series in several sources the row of one of them is shown, whatever it says
    row = f"arg_max(source, ({_ranked(settings)}, version_at, object_id)) OVER (PARTITION BY {grain})"
    told = "true"
    if owner is Owner.FRAME_OF_REFERENCE:
        told = " IS NOT NULL AND ".join((*GRAINS[owner], *of(owner), "true"))
        row = f"first_value(source) OVER (PARTITION BY {grain} ORDER BY {_ranked(settings)} DESC)"
    return f"""
WITH long AS (
    UNPIVOT (SELECT {grain}, {", ".join(kept)}, {row} AS counts, {names} FROM {instances} WHERE {told})
    ON {listed} INTO NAME attribute VALUE value
),
written AS (
    SELECT {grain}, attribute, value, count(*) AS written, min(first_seen_at) AS first_at, max(updated_at) AS last_at,
        max({NEWEST}) FILTER ({_same_row(owner, settings)}) AS newest,
        count(*) FILTER ({_same_row(owner, settings)}) AS own_written
    FROM long GROUP BY ALL
),
counted AS (
    SELECT {grain}, attribute, said, sum(written)::BIGINT AS objects, min(first_at) AS first_at,
        max(last_at) AS last_at, max(newest) AS newest, sum(own_written)::BIGINT AS own_objects
    FROM (SELECT *, {said("attribute", "value", attributes)} AS said FROM written)
    WHERE said IS NOT NULL GROUP BY ALL
)
SELECT
    md5(StudyInstanceUID) AS shown_by, '{owner}' AS level, {_uids(owner)}, attribute, said, objects, first_at, last_at,
    {_shown(f"{grain}, attribute", settings)}
FROM counted
QUALIFY count(*) OVER (PARTITION BY {grain}, attribute) > 1
"""


def _same_row(owner: Owner, settings: CurationSettings) -> str:
    if owner is Owner.FRAME_OF_REFERENCE:
        return f"{_ranked(settings)} = {_ranked(settings, 'counts')}"
    return "source = counts"


def _uids(owner: Owner) -> str:
    named = GRAINS[owner]
    wanted = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    return ", ".join(f'{name if name in named else "NULL::VARCHAR"} AS "{name}"' for name in wanted)


def _shown(grain: str, settings: CurationSettings) -> str:
    """SQL for whether a value is the one that the rule chooses; NULL where another attribute chooses."""
    order = f"CASE WHEN {_frequent(settings, 'attribute')} THEN own_objects ELSE 0 END DESC, newest DESC"
    return f"""CASE WHEN attribute IN ({_names(UNSHOWN)}) THEN NULL ELSE coalesce(
        own_objects > 0 AND row_number() OVER (PARTITION BY {grain} ORDER BY own_objects = 0, {order}) = 1, false) END
        AS is_shown"""


def there(owner: Owner, conflicts: str, attributes: Collection[str] = ()) -> str:
    """SQL for the same as the table has it. conflicts: a relation of its rows."""
    attributes = [*attributes] or of(owner)
    is_uid = "attribute NOT IN ('SeriesInstanceUID', 'SOPInstanceUID')"
    return f"""
SELECT
    md5(StudyInstanceUID) AS shown_by, level, StudyInstanceUID, SeriesInstanceUID, FrameOfReferenceUID, attribute,
    {said("attribute", "value", attributes)} AS said, objects, first_at, last_at,
    {_is_shown(attributes)}
FROM ({exploded(conflicts)})
WHERE level = '{owner}' AND {is_uid}
"""


def _is_shown(among: Collection[str]) -> str:
    value, shown = (said("attribute", column, among) for column in ("value", "shown_value"))
    return f"""CASE WHEN attribute IN ({_names(UNSHOWN)}) THEN NULL
        ELSE coalesce({value} = {shown}, false) END AS is_shown"""


def exploded(conflicts: str) -> str:
    """SQL for a row for each value of each conflict."""
    return f"""
SELECT * EXCLUDE (told_values, told_objects, told_first_at, told_last_at),
    unnest(told_values) AS value, unnest(told_objects) AS objects,
    unnest(told_first_at) AS first_at, unnest(told_last_at) AS last_at
FROM {conflicts}
"""


PARENTS = {"SeriesInstanceUID": "StudyInstanceUID", "SOPInstanceUID": "SeriesInstanceUID"}


def uids_told(uid: str, instances: str) -> str:
    """SQL for UIDs under several parents, a row for each parent. instances: all that may have them."""
    return f"""
SELECT md5({uid}) AS shown_by, '{uid}' AS attribute, {uid} AS uid, parent, objects, first_at, last_at FROM (
    SELECT {uid}, {PARENTS[uid]} AS parent, count(*) AS objects, min(first_seen_at) AS first_at,
        max(updated_at) AS last_at, count(*) OVER (PARTITION BY {uid}) AS parents
    FROM {instances} GROUP BY {uid}, {PARENTS[uid]}
) WHERE parents > 1
"""


def uids_there(uid: str, conflicts: str) -> str:
    """SQL for the same as the table has it."""
    return f"""
SELECT md5({uid}) AS shown_by, attribute, {uid} AS uid, value AS parent, objects, first_at, last_at
FROM ({exploded(conflicts)}) WHERE attribute = '{uid}'
"""


def values_told(instances: str, attributes: Collection[str] = ()) -> str:
    """SQL for what studies say of their patients, a row for each study, patient, attribute and value.

    instances: all of these studies. Who it is of is found by joins, where the table has it from Python. attributes:
    those of which any says something; all of them, when none is given.
    """
    attributes = [*attributes] or of(Owner.PATIENT)
    texts = ", ".join(f'{_as_text(name)} AS "{name}"' for name in attributes)
    listed = ", ".join(f'"{name}"' for name in attributes)
    return f"""
WITH written AS (
    SELECT study_key, PatientID, IssuerOfPatientID, {listed}, count(*) AS written, min(first_seen_at) AS first_seen_at,
        max(updated_at) AS updated_at, max({NEWEST}) AS newest
    FROM {instances} GROUP BY ALL
),
named AS (
    SELECT *, {clean("PatientID")} AS own_id, {clean("IssuerOfPatientID")} AS own_issuer FROM written
),
studies AS (
    SELECT study_key, list(DISTINCT own_id ORDER BY own_id) FILTER (own_id IS NOT NULL) AS ids FROM named
    GROUP BY study_key
),
resolved AS (
    SELECT named.*, coalesce(own_id, if(len(ids) = 1, ids[1], NULL)) AS id
    FROM named JOIN studies USING (study_key)
    WHERE own_id IS NOT NULL OR coalesce(len(ids), 0) <= 1
),
issued AS (
    SELECT study_key, id, min(own_issuer) AS issuer FROM resolved GROUP BY ALL
    HAVING min(own_issuer) = max(own_issuer)
),
whose AS (
    SELECT resolved.*, coalesce(own_issuer, issued.issuer) AS issued_by
    FROM resolved LEFT JOIN issued
        ON issued.study_key = resolved.study_key AND issued.id IS NOT DISTINCT FROM resolved.id
),
long AS (
    UNPIVOT (SELECT study_key, id, issued_by, written, first_seen_at, updated_at, newest, {texts} FROM whose)
    ON {listed} INTO NAME attribute VALUE value
)
SELECT study_key, {_person("id", "issued_by")}, attribute, said, sum(written) AS objects,
    min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at, max(newest) AS newest
FROM (SELECT *, {said("attribute", "value", attributes)} AS said FROM long)
WHERE said IS NOT NULL
GROUP BY ALL
"""


def _person(one: str, issuer: str) -> str:
    """SQL for an identifier and its issuer; of a study without an identifier the issuer tells nobody."""
    return f"{one} AS id, if({one} IS NULL, NULL, {issuer}) AS issuer"


def values_there(values: str) -> str:
    """SQL for the same as patient_value has it."""
    return f"""
SELECT study_key, {_person(clean("PatientID"), clean("IssuerOfPatientID"))}, attribute, said, objects, first_seen_at,
    updated_at, {NEWEST} AS newest
FROM {values}
"""


def patients_mixed_up(values: str) -> str:
    """SQL for studies with a patient_key that stands for two patients."""
    return f"""
WITH named AS (
    SELECT study_key, source, patient_key, {clean("PatientID")} AS id, {clean("IssuerOfPatientID")} AS issuer
    FROM {values}
),
people AS (
    SELECT study_key, patient_key, CASE WHEN id IS NULL THEN study_key
        ELSE concat_ws(chr(1), id, coalesce('i' || issuer, 's' || source)) END AS who
    FROM named
)
SELECT min(study_key) FROM people GROUP BY patient_key HAVING count(DISTINCT who) > 1
UNION ALL
SELECT min(study_key) FROM people GROUP BY who HAVING count(DISTINCT patient_key) > 1
"""


def patients_told(values: str, settings: CurationSettings) -> str:
    """SQL for the conflicts of patients, a row for each value. values: all rows of patient_value of these patients."""
    rank = _ranked(settings)
    return f"""
WITH ranked AS (
    SELECT *, {rank} = max({rank}) OVER (PARTITION BY patient_key, attribute) AS counts FROM {values}
),
counted AS (
    SELECT patient_key, attribute, said, sum(objects) AS objects, min(first_seen_at) AS first_at,
        max(updated_at) AS last_at, max({NEWEST}) FILTER (counts) AS newest,
        coalesce(sum(objects) FILTER (counts), 0) AS own_objects
    FROM ranked GROUP BY patient_key, attribute, said
)
SELECT patient_key AS shown_by, attribute, said, objects, first_at, last_at,
    {_shown("patient_key, attribute", settings)}
FROM counted
QUALIFY count(*) OVER (PARTITION BY patient_key, attribute) > 1
"""


def patients_doubtful(values: str, conflicts: str) -> str:
    """SQL for the attributes in which some patients have a conflict, by what is said of them or by the table."""
    return f"""
SELECT attribute FROM {values} GROUP BY patient_key, attribute HAVING min(said) <> max(said)
UNION
SELECT attribute FROM {conflicts} WHERE level = '{Owner.PATIENT}' AND subject_key IN (SELECT patient_key FROM {values})
"""


def patients_there(conflicts: str, attributes: Collection[str] = ()) -> str:
    """SQL for the same as the table has it. attributes: those that are looked at; all of them, when none is given."""
    among = [*attributes] or of(Owner.PATIENT)
    return f"""
SELECT subject_key AS shown_by, attribute, {said("attribute", "value", among)} AS said, objects, first_at,
    last_at, {_is_shown(among)}
FROM ({exploded(conflicts)}) WHERE level = '{Owner.PATIENT}'
"""
