"""How much of the lake is mapped and linked: the rows of `mapping_coverage`, and how they are shown.

Belongs here: what is counted, and the rule by which imaging and clinical patients are the same. Does not belong here:
thresholds of the check, the commit.

Counting reads narrow columns of the whole lake: the one cost of a batch, besides the look-up of ids, that grows with
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.lake.registry import MAPPING_COVERAGE

TABLES = ("imaging_study", "diagnostic_report", "image_occurrence", "image_occurrence_origin", "clinical")
"""Tables that the counting reads."""

RANKED = 20
"""How many values that are not mapped are kept for each measure."""

SAME_PATIENT = """
-- one row for each pair (imaging patient, clinical patient) that is one person
WITH imaging AS (
    SELECT DISTINCT id, issuer FROM live_study WHERE id <> ''
),
recorded AS (
    SELECT DISTINCT trim(PatientID) AS id, nullif(trim(IssuerOfPatientID), '') AS issuer
    FROM clinical
    WHERE trim(PatientID) <> ''
),
issuers AS (
    SELECT id, count(DISTINCT issuer) AS issuers
    FROM (SELECT * FROM imaging UNION ALL SELECT * FROM recorded)
    GROUP BY id
)
SELECT imaging.id, imaging.issuer AS imaging_issuer, recorded.issuer AS clinical_issuer
FROM imaging
JOIN recorded USING (id)
JOIN issuers USING (id)
-- an identifier without an issuer fits another one only while nobody else has issued the same
WHERE imaging.issuer = recorded.issuer
   OR ((imaging.issuer IS NULL OR recorded.issuer IS NULL) AND issuers.issuers <= 1)
"""

_COUNTED_FIRST = {
    "live_study": """
        SELECT
            study_key, trim(PatientID) AS id, nullif(trim(IssuerOfPatientID), '') AS issuer, subject_state
        FROM imaging_study WHERE NOT is_deleted
    """,
    "same_patient": SAME_PATIENT,
    "occurrences": """
        SELECT modality_concept_id <> 0 AS has_modality, anatomic_site_concept_id <> 0 AS has_site, count(*) AS series
        FROM image_occurrence GROUP BY ALL
    """,
    "origins": """
        SELECT person_from, procedure_from, visit_from, date_from, count(*) AS series
        FROM image_occurrence_origin GROUP BY ALL
    """,
}
"""Temporary tables that the measures are counted from, so that each large table is read once."""


def _series(measure: str, counts: str, mapped: str) -> str:
    return (
        f"SELECT '{measure}' AS measure, coalesce(sum(series) FILTER ({mapped}), 0)::BIGINT AS mapped, "
        f"coalesce(sum(series), 0)::BIGINT AS total FROM {counts}"
    )


_MEASURES = "\nUNION ALL\n".join(
    [
        _series("series with mapped modality", "occurrences", "has_modality"),
        _series("series with mapped anatomic site", "occurrences", "has_site"),
        _series("series with mapped person", "origins", "person_from = 'mapping'"),
        _series("series with mapped procedure", "origins", "procedure_from = 'mapping'"),
        _series("series with mapped visit", "origins", "visit_from = 'mapping'"),
        _series("series with a date", "origins", "date_from <> 'unknown'"),
        """
SELECT 'studies with clinical records', count(*) FILTER (EXISTS (
    SELECT 1 FROM same_patient AS p WHERE p.id = s.id AND p.imaging_issuer IS NOT DISTINCT FROM s.issuer
)), count(*)
FROM live_study AS s
UNION ALL
SELECT 'studies with one known patient', count(*) FILTER (subject_state = 'identified'), count(*) FROM live_study
UNION ALL
SELECT 'studies with reports', count(*) FILTER (
    study_key IN (SELECT unnest(study_keys) FROM diagnostic_report)
), count(*)
FROM live_study
UNION ALL
SELECT 'reports linked to a study', count(*) FILTER (link_state = 'linked'), count(*) FROM diagnostic_report
UNION ALL
SELECT 'clinical records with a patient', count(*) FILTER (trim(PatientID) <> ''), count(*)
FROM clinical WHERE patient_reference IS NOT NULL OR PatientID IS NOT NULL OR resource_id IS NULL
UNION ALL
SELECT 'clinical patients with studies', count(*) FILTER (EXISTS (
    SELECT 1 FROM same_patient AS p WHERE p.id = c.id AND p.clinical_issuer IS NOT DISTINCT FROM c.issuer
)), count(*)
FROM (
    SELECT DISTINCT trim(PatientID) AS id, nullif(trim(IssuerOfPatientID), '') AS issuer
    FROM clinical WHERE trim(PatientID) <> ''
) AS c
""",
    ]
)
"""One row for each measure."""

_UNMAPPED = f"""
-- one row for each value that is not mapped, the most frequent ones first
WITH counted AS (
    SELECT
        'series with mapped modality' AS measure,
        coalesce(nullif(trim(modality), ''), '(none)') AS value,
        count(*) AS total
    FROM image_occurrence JOIN image_occurrence_origin USING (image_occurrence_id)
    WHERE modality_concept_id = 0 GROUP BY ALL
    UNION ALL
    SELECT 'series with mapped anatomic site', coalesce(nullif(trim(anatomic_site), ''), '(none)'), count(*)
    FROM image_occurrence JOIN image_occurrence_origin USING (image_occurrence_id)
    WHERE coalesce(anatomic_site_concept_id, 0) = 0 GROUP BY ALL
    UNION ALL
    SELECT 'series with mapped person', person_from, sum(series)::BIGINT
    FROM origins WHERE person_from <> 'mapping' GROUP BY ALL
    UNION ALL
    SELECT 'studies with one known patient', subject_state, count(*)
    FROM live_study WHERE subject_state <> 'identified' GROUP BY ALL
    UNION ALL
    SELECT 'reports linked to a study', link_state, count(*)
    FROM diagnostic_report WHERE link_state <> 'linked' GROUP BY ALL
)
SELECT measure, value, total FROM counted
QUALIFY row_number() OVER (PARTITION BY measure ORDER BY total DESC, value) <= {RANKED}
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


def coverage(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Rows of `mapping_coverage`. connection: holds TABLES as views."""
    for name, sql in _COUNTED_FIRST.items():
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
    rows = []
    for name, mapped, total in connection.execute(_MEASURES).fetchall():
        share = mapped / total if total else None
        rows.append({"measure": name, "value": "", "mapped": mapped, "total": total, "share": share})
    for name, value, total in connection.execute(_UNMAPPED).fetchall():
        rows.append({"measure": name, "value": value, "mapped": 0, "total": total, "share": 0.0})
    return pa.Table.from_pylist(rows, schema=MAPPING_COVERAGE.schema)


def measures(rows: pa.Table) -> list[Measure]:
    """The shares among rows of `mapping_coverage`."""
    return [Measure(row["measure"], row["mapped"], row["total"]) for row in rows.to_pylist() if row["value"] == ""]


_OWN_WORDS = {
    "(none)",
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
