"""Whether a cohort may leave the lake as it is: the scores of its series in table `phi_risk`.

Belongs here: asking that table, and refusing. Does not belong here: how a score comes about.

A score is of the current objects of a series in batches that were taken in. So it says nothing of a series of which the
cohort has other objects: those that came since, and those that were replaced and may still lie where they lay.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.frozen import CohortError
from dicom_assets.curation.tag_profile import taken_in
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import scan
from dicom_assets.schema.tag_tables import PHI_RISK


class RiskTooHigh(CohortError):
    """Series of a cohort that are not to leave the lake as they are; the message says how many."""


@dataclass(frozen=True)
class Risk:
    """series: of a cohort; above: with a score above a limit; unknown: others of which no score is known."""

    series: int
    above: int
    unknown: int


_SERIES = ("source", "StudyInstanceUID", "SeriesInstanceUID")
_COUNTED = """
WITH judged AS (SELECT source, object_id, true AS is_judged FROM {instance} SEMI JOIN taken_in USING (batch_id)),
own AS (
    SELECT {series}, bool_and(coalesce(is_judged, false)) AS is_judged
    FROM cohort LEFT JOIN judged USING (source, object_id) GROUP BY ALL
)
SELECT count(*), count(*) FILTER (is_above), count(*) FILTER (NOT is_above AND (score IS NULL OR NOT is_judged))
FROM (
    SELECT score, is_judged, coalesce(score > $1, false) AS is_above
    FROM own LEFT JOIN {phi_risk} AS risk USING ({series})
)
"""


def risk_of(lake: Lake, name: str, limit: int) -> Risk:
    """How many series of a cohort are above a score, and of how many none is known. Raises CohortError, LakeError."""
    named = [*_SERIES, "object_id"]
    tables = {table: scan(lake, table) for table in ("instance", PHI_RISK.name)}
    with lake.cursor() as connection:
        connection.register("taken_in", pa.table({"batch_id": pa.array(taken_in(lake), pa.string())}))
        connection.execute(f"CREATE TEMP TABLE cohort ({', '.join(f'{one} VARCHAR' for one in named)})")
        for rows in frozen.rows(lake.files, name, named):
            connection.register("some_rows", rows)
            connection.execute("INSERT INTO cohort BY NAME FROM some_rows")
            connection.unregister("some_rows")
        sql = _COUNTED.format(series=", ".join(_SERIES), **tables)
        ((series, above, unknown),) = connection.execute(sql, [limit]).fetchall()
    return Risk(int(series), int(above), int(unknown))


def require_low_risk(lake: Lake, name: str, limit: int) -> None:
    """Raises RiskTooHigh when a series of a cohort has a score above a limit, or none."""
    risk = risk_of(lake, name, limit)
    if not risk.above and not risk.unknown:
        return
    told = [f"{risk.above} of its {risk.series} series are above the limit of {limit}"] if risk.above else []
    told += [f"the risk of {risk.unknown} of its {risk.series} series is not known"] if risk.unknown else []
    judge = "`dicom-assets curate` judges what is current in closed batches. " if risk.unknown else ""
    raise RiskTooHigh(
        f"Cohort {name} is not exported as it is: {', and '.join(told)} (table phi_risk, [curation] "
        f"export_risk_limit). {judge}Export it with --deidentify, or give --despite-risk and the reason, which is "
        "recorded. Nothing was written."
    )
