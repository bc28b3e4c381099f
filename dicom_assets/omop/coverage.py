"""How much of the lake is mapped and linked: the rows of `mapping_coverage`, and how they are shown.

Belongs here: what is counted. Does not belong here: who is the same patient (`lake.subjects`), how counts of files are
kept (`lake.summaries`), thresholds of the check, the commit.

What a row counts for by itself is counted file by file, so a batch counts what it wrote. Who is the same patient is
asked over the whole lake, of narrow columns of `study` and `clinical`: besides the look-ups of ids and of names the one
cost of a batch that grows with the lake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.lake.subjects import PATIENTS, RECORDED, SUBJECT_STATE, clean, issuers_known, same_patient
from dicom_assets.schema.registry import MAPPING_COVERAGE

_NONE = "(none)"


def _struct(measure: str, mapped: str, value: str = "''") -> str:
    """SQL for what one row counts for; value: what is ranked when it is not mapped."""
    shown = value if value == "''" else f"CASE WHEN {mapped} THEN '' ELSE {value} END"
    return f"{{'measure': '{measure}', 'value': {shown}, 'mapped': {mapped}}}"


def _written(column: str) -> str:
    return f"coalesce(nullif(trim({column}), ''), '{_NONE}')"


MODALITY, SITE, PERSON = "series with mapped modality", "series with mapped anatomic site", "series with mapped person"

COUNTED: Mapping[str, str] = {
    "image_occurrence_origin": f"""[
        {_struct(MODALITY, "modality_mapped", _written("modality"))},
        {_struct(SITE, "anatomic_site_mapped", _written("anatomic_site"))},
        {_struct(PERSON, "person_from = 'mapping'", "person_from")},
        {_struct("series with mapped procedure", "procedure_from = 'mapping'")},
        {_struct("series with mapped visit", "visit_from = 'mapping'")},
        {_struct("series with a date", "date_from <> 'unknown'")}
    ]""",
    "study": f"""[
        {_struct("studies with one known patient", f"{SUBJECT_STATE} = 'identified'", SUBJECT_STATE)}
    ]""",
    "diagnostic_report": f"""[
        {_struct("reports linked to a study", "link_state = 'linked'", "link_state")}
    ]""",
    "clinical": f"""CASE
        WHEN version_state IS NULL
            AND (patient_reference IS NOT NULL OR PatientID IS NOT NULL OR resource_id IS NULL)
        THEN [{_struct("clinical records with a patient", f"{clean('PatientID')} IS NOT NULL")}]
    END""",
}
"""By table, SQL for the list of structs (measure, value, mapped) that a row counts for."""

LINKED = ("study", "diagnostic_report", "clinical", "patient_link")
"""Tables that are asked as a whole who is linked to whom."""

MEASURES = (
    MODALITY,
    SITE,
    PERSON,
    "series with mapped procedure",
    "series with mapped visit",
    "series with a date",
    "studies with clinical records",
    "studies with one known patient",
    "studies with reports",
    "reports linked to a study",
    "clinical records with a patient",
    "clinical patients with studies",
)
"""Every measure, in the order in which they are shown."""

RANKED = 20
"""How many values that are not mapped are kept for each measure; that nothing is written at all always is."""

SAME_PATIENT = f"""
-- one row for each pair (imaging patient, clinical patient) that is one person
SELECT imaging.id, imaging.issuer AS imaging_issuer, recorded.issuer AS clinical_issuer
FROM patients AS imaging
JOIN recorded_patients AS recorded USING (id)
LEFT JOIN {issuers_known("patients", "recorded_patients")} AS issuers USING (id)
WHERE {same_patient("imaging", "recorded", "issuers")}
"""

_LINKS = """
-- one row for each measure of links
SELECT 'studies with clinical records' AS measure, coalesce(sum(studies) FILTER (EXISTS (
    SELECT 1 FROM same_patient WHERE same_patient.id = p.id AND imaging_issuer IS NOT DISTINCT FROM p.issuer
)), 0)::BIGINT AS mapped, coalesce(sum(studies), 0)::BIGINT AS total
FROM patients AS p
UNION ALL
SELECT 'studies with reports', (
    SELECT count(*) FROM study WHERE study_key IN (SELECT unnest(study_keys) FROM diagnostic_report)
), coalesce(sum(studies), 0)::BIGINT
FROM patients
UNION ALL
SELECT 'clinical patients with studies', count(*) FILTER (EXISTS (
    SELECT 1 FROM same_patient WHERE same_patient.id = c.id AND clinical_issuer IS NOT DISTINCT FROM c.issuer
)), count(*)
FROM recorded_patients AS c
"""

_SHARES = """
-- one row for each measure that anything counts for
SELECT measure, coalesce(sum(rows) FILTER (mapped), 0)::BIGINT AS mapped, sum(rows)::BIGINT AS total
FROM counted GROUP BY measure
"""

_UNMAPPED = f"""
-- one row for each value that is not mapped, the most frequent ones first
WITH ranked AS (SELECT measure, value, sum(rows)::BIGINT AS total FROM counted WHERE value <> '' GROUP BY ALL)
SELECT measure, value, total FROM ranked
QUALIFY value = '{_NONE}' OR row_number() OVER (PARTITION BY measure ORDER BY total DESC, value) <= {RANKED}
ORDER BY measure, total DESC, value
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """One share. share: mapped / total, None of nothing."""

    name: str
    mapped: int
    total: int

    @property
    def share(self) -> float | None:
        """Mapped / total, None when there are none."""
        return self.mapped / self.total if self.total else None


def coverage(connection: duckdb.DuckDBPyConnection, counted: pa.Table) -> pa.Table:
    """Rows of `mapping_coverage`. connection: holds LINKED as views. counted: `lake.summaries.COUNTS` of COUNTED."""
    connection.register("counted", counted)
    for name, sql in (("patients", PATIENTS), ("recorded_patients", RECORDED), ("same_patient", SAME_PATIENT)):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
    found = {name: (mapped, total) for name, mapped, total in connection.execute(_SHARES).fetchall()}
    found |= {name: (mapped, total) for name, mapped, total in connection.execute(_LINKS).fetchall()}
    rows = []
    for name in MEASURES:
        mapped, total = found.get(name, (0, 0))
        share = mapped / total if total else None
        rows.append({"measure": name, "value": "", "mapped": mapped, "total": total, "share": share})
    for name, value, total in connection.execute(_UNMAPPED).fetchall():
        rows.append({"measure": name, "value": value, "mapped": 0, "total": total, "share": 0.0})
    return pa.Table.from_pylist(rows, schema=MAPPING_COVERAGE.schema)


def written(rows: pa.Table, measure: str) -> tuple[int, int]:
    """Of the series that say something, how many are mapped, and how many there are."""
    found = {row["value"]: row for row in rows.to_pylist() if row["measure"] == measure}
    if "" not in found:
        return 0, 0
    silent = found[_NONE]["total"] if _NONE in found else 0
    return found[""]["mapped"], found[""]["total"] - silent


def measures(rows: pa.Table) -> list[Measure]:
    """The shares among rows of `mapping_coverage`."""
    return [Measure(row["measure"], row["mapped"], row["total"]) for row in rows.to_pylist() if row["value"] == ""]


_OWN_WORDS = {
    _NONE,
    "surrogate",
    "missing",
    "conflict",
    "unlinked",
    "ambiguous",
    "patient_conflict",
    "patient_mismatch",
}


def _shown(value: str) -> str:
    """A value that is not mapped, as far as it is a code string (PS3.5 6.2): free text might say more than a code."""
    is_code = len(value) <= 16 and all(c in " _" or c.isdigit() or "A" <= c <= "Z" for c in value)
    return value if is_code or value in _OWN_WORDS else "(free text)"


def markdown(rows: pa.Table) -> str:
    """Two Markdown tables: the shares, and what is not mapped by volume. Values that are no codes are not shown."""
    lines = ["| | mapped | of | share |", "|---|--:|--:|--:|"]
    for one in measures(rows):
        share = "—" if one.share is None else f"{one.share:.1%}"
        lines.append(f"| {one.name} | {one.mapped:,} | {one.total:,} | {share} |")
    values = [row for row in rows.to_pylist() if row["value"]]
    if values:
        lines += ["", "| not mapped | value | how many |", "|---|---|--:|"]
        lines += [f"| {row['measure']} | {_shown(row['value'])} | {row['total']:,} |" for row in values]
    return "\n".join(lines) + "\n"


_BAR = 30


def chart(shares: Sequence[Measure]) -> str:
    """The shares as bars, in Markdown that needs no image: viewers that clean Markdown often leave images out."""
    width = max((len(one.name) for one in shares), default=0)
    lines = []
    for one in shares:
        filled = round((one.share or 0.0) * _BAR)
        text = "nothing there" if one.share is None else f"{one.share:.0%}"
        lines.append(f"{one.name:{width}}  {'█' * filled}{'░' * (_BAR - filled)}  {text}")
    return "\n".join(["```text", *lines, "```", ""])
