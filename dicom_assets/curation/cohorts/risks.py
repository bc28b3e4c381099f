"""Whether a cohort may leave the lake as it is: the scores of its series in table `phi_risk`.

Belongs here: asking that table, and refusing. Does not belong here: how a score comes about.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.frozen import CohortError
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import scan
from dicom_assets.lake.tables import NoSuchVersion

TABLE = "phi_risk"


class RiskTooHigh(CohortError):
    """Series of a cohort that are not to leave the lake as they are; the message says how many."""


@dataclass(frozen=True)
class Risk:
    """series: of a cohort; above: with a score above a limit; unknown: without a score."""

    series: int
    above: int
    unknown: int


_COUNTED = """
SELECT count(*), count(*) FILTER (score > $1), count(*) FILTER (score IS NULL)
FROM (SELECT DISTINCT {columns} FROM cohort)
LEFT JOIN (SELECT {columns}, max(score) AS score FROM {scores} GROUP BY ALL) USING ({columns})
"""


def risk_of(lake: Lake, name: str, limit: int) -> Risk:
    """How many series of a cohort are above a score, and of how many none is known. Raises CohortError, LakeError."""
    with lake.cursor() as connection:
        connection.execute("CREATE TEMP TABLE cohort (source VARCHAR, SeriesInstanceUID VARCHAR)")
        for rows in frozen.rows(lake.files, name, ["source", "SeriesInstanceUID"]):
            connection.register("some_rows", rows)
            connection.execute("INSERT INTO cohort SELECT DISTINCT * FROM some_rows")
            connection.unregister("some_rows")
        scores = "(SELECT NULL::VARCHAR AS SeriesInstanceUID, NULL::DOUBLE AS score WHERE false)"
        columns = "SeriesInstanceUID"
        if TABLE in lake.tables:
            try:
                scores = scan(lake, TABLE)
                columns = "source, SeriesInstanceUID" if "source" in lake.tables[TABLE] else columns
            except NoSuchVersion:
                pass  # a lake that nobody has written to since there is this table
        found = connection.execute(_COUNTED.format(columns=columns, scores=scores), [limit]).fetchall()
    return Risk(*map(int, found[0]))


def require_low_risk(lake: Lake, name: str, limit: int) -> None:
    """Raises RiskTooHigh when a series of a cohort has a score above a limit, or none."""
    risk = risk_of(lake, name, limit)
    if not risk.above and not risk.unknown:
        return
    told = [f"{risk.above} of its {risk.series} series are above the limit of {limit}"] if risk.above else []
    told += [f"the risk of {risk.unknown} of its {risk.series} series is not known"] if risk.unknown else []
    raise RiskTooHigh(
        f"Cohort {name} is not exported as it is: {', and '.join(told)} (table phi_risk, [curation] "
        "export_risk_limit). Export it with --deidentify, or give --despite-risk and the reason, which is "
        "recorded. Nothing was written."
    )
