"""What the objects of a study say differently of what there is once: patients, dates, numbers.

Belongs here: disagreements for a page, from the table `conflict` where the lake has it, else from the study's own
instances. Does not belong here: deciding which value counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_assets.catalogue.row_reading import rows
from dicom_assets.lake.quoting import named, quoted
from dicom_assets.serve.newest import Rows
from dicom_assets.serve.served import Scope, Snapshot

OF_A_STUDY = (
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "ReferringPhysicianName"),
)
"""Attributes that all objects of a study have in common (PS3.3 C.7.1.1, C.7.2.1)."""

MOST = 100
"""Disagreements, and values of one, that are shown."""


@dataclass(frozen=True)
class Disagreement:
    """One attribute with several values. values: each with how many objects say it. shown: the one that counts."""

    level: str
    attribute: str
    values: Sequence[tuple[str, int]]
    shown: str | None


def disagreements(snapshot: Snapshot, instances: Rows, study_keys: Sequence[str]) -> list[Disagreement]:
    """Of one study. instances: its rows of `instance`. study_keys: those that the caller may see."""
    if "conflict" in snapshot.extents:
        return _known(snapshot, study_keys)
    return _own(snapshot, instances)


def _known(snapshot: Snapshot, study_keys: Sequence[str]) -> list[Disagreement]:
    """Those of the table; of patients with other studies only where the caller may see all of these."""
    conflicts = snapshot.within(Scope()).scan("conflict")
    visible = snapshot.scan("study", columns=["study_key"])
    is_limited = snapshot.scope != Scope()
    limited = f"AND list_has_all((SELECT list(study_key) FROM {visible}), study_keys)" if is_limited else ""
    with snapshot.cursor() as connection:
        found = rows(
            connection,
            f"""
            -- one row per attribute of a patient, study, series or frame of reference that has several values
            SELECT level, attribute, told_values, told_objects, shown_value FROM {conflicts}
            WHERE list_has_any(study_keys, ?) {limited}
            ORDER BY level, attribute LIMIT {MOST}
            """,
            [[*study_keys]],
        )
    return [
        Disagreement(
            one["level"],
            one["attribute"],
            [*zip(one["told_values"][:MOST], one["told_objects"], strict=False)],
            one["shown_value"],
        )
        for one in found
    ]


def _own(snapshot: Snapshot, instances: Rows) -> list[Disagreement]:
    told = " UNION ALL ".join(
        f"SELECT {quoted(name)} AS attribute, {named(name)}::VARCHAR AS value FROM instances" for name in OF_A_STUDY
    )
    with snapshot.cursor() as connection:
        found = rows(
            connection,
            f"""
            -- one row per attribute and value
            WITH instances AS MATERIALIZED (SELECT {", ".join(map(named, OF_A_STUDY))} FROM {instances.sql})
            SELECT attribute, value, count(*) AS objects FROM ({told}) WHERE trim(value) <> ''
            GROUP BY attribute, value QUALIFY count(*) OVER (PARTITION BY attribute) > 1 ORDER BY objects DESC, value
            """,
            instances.parameters,
        )
    by_attribute: dict[str, list[tuple[str, int]]] = {}
    for one in found:
        by_attribute.setdefault(one["attribute"], []).append((one["value"], one["objects"]))
    return [Disagreement("study", name, by_attribute[name][:MOST], None) for name in OF_A_STUDY if name in by_attribute]
