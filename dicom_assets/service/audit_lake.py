"""The lake's side of an audit: what it counts, what it holds of a study, where findings are kept.

Belongs here: the tables. Does not belong here: the comparison (`audit`), the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.registry import DICOM_SERVICE_AUDIT
from dicom_assets.service.audit import (
    Difference,
    Finding,
    LakeInstance,
    StudyKey,
    compare,
    repair_pages,
    server_counts,
    under_way,
)
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.window_files import Landed, land, repair_path

_COUNTS = """
-- one row per study of some sources (a service, or its data partitions), as the service knows it: without corrections
SELECT source, StudyInstanceUID, sum(instances)::BIGINT
FROM (
    SELECT source, StudyInstanceUID, instance_count AS instances FROM study WHERE corrections IS NULL
    UNION ALL
    SELECT source, coalesce(received_study_instance_uid, StudyInstanceUID), count(*)
    FROM instance SEMI JOIN (FROM study WHERE corrections IS NOT NULL) AS corrected USING (study_key)
    GROUP BY ALL
)
WHERE list_contains($1, source)
GROUP BY ALL
"""

_INSTANCES = """
-- one row per instance of the studies that an audit found
SELECT instance.source, found.study AS StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, version_at
FROM instance
JOIN found ON found.source = instance.source
    AND found.study = coalesce(instance.received_study_instance_uid, instance.StudyInstanceUID)
"""

_FINDINGS = """
-- one row per study that the last audit of a service found
SELECT source, StudyInstanceUID, difference, server_instances, lake_instances, audit_id
FROM dicom_service_audit
WHERE service = $1
ORDER BY source, StudyInstanceUID
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit of one service found. studies: how many the server has; left_out: studies still under way."""

    service: str
    audit_id: str
    studies: int
    instances: int
    left_out: int
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Findings by kind, zero ones too."""
        return {str(kind): sum(one.difference is kind for one in self.findings) for kind in Difference}

    @property
    def command(self) -> str:
        """The command that repairs exactly what was found; it names no study."""
        return f"dicom-assets repair {self.service}"


def lake_counts(lake: Lake, sources: Sequence[str]) -> dict[StudyKey, int]:
    """Instances by study as the lake counts them."""
    with connect(lake, ["study", "instance"]) as connection:
        rows = connection.execute(_COUNTS, [list(sources)]).fetchall()
    return {(source, study): count for source, study, count in rows}


def audit(client: ServiceClient, lake: Lake, due: datetime) -> Audit:
    """Compares a service with the lake and keeps the findings in `dicom_service_audit`.

    due: start of the last window that is due; studies that changed since are left out. Raises ServiceError and its
    kinds, LakeError.
    """
    server = server_counts(client)
    at = server.at
    moving = under_way(client, due, at)
    findings = compare(server.studies, lake_counts(lake, server.sources), moving)
    found = Audit(
        service=client.name,
        audit_id=f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}",
        studies=len(server.studies),
        instances=sum(server.studies.values()),
        left_out=len(moving),
        findings=tuple(findings),
    )
    with lake.committing(DICOM_SERVICE_AUDIT.name):
        lake.replace(DICOM_SERVICE_AUDIT.name, [client.name], _rows(found, at))
    return found


def _rows(found: Audit, at: datetime) -> pa.Table:
    rows = [
        {
            "service": found.service,
            "audit_id": found.audit_id,
            "source": one.source,
            "StudyInstanceUID": one.study,
            "difference": str(one.difference),
            "server_instances": one.server_instances,
            "lake_instances": one.lake_instances,
            "audited_at": at,
        }
        for one in found.findings
    ]
    return pa.Table.from_pylist(rows, schema=DICOM_SERVICE_AUDIT.schema)


def last_findings(lake: Lake, service: str) -> tuple[str | None, list[Finding]]:
    """The last audit's id and findings; no id when it found nothing, or when there was none."""
    with connect(lake, [DICOM_SERVICE_AUDIT.name]) as connection:
        rows = connection.execute(_FINDINGS, [service]).fetchall()
    findings = [Finding(source, study, Difference(kind), there, here) for source, study, kind, there, here, _ in rows]
    return (rows[0][5] if rows else None), findings


def lake_instances(lake: Lake, findings: Sequence[Finding]) -> dict[StudyKey, list[LakeInstance]]:
    """The instances that the lake has of these studies."""
    found = pa.table(
        {"source": [one.source for one in findings], "study": [one.study for one in findings]},
        schema=pa.schema([pa.field("source", pa.string()), pa.field("study", pa.string())]),
    )
    held: dict[StudyKey, list[LakeInstance]] = {}
    with connect(lake, ["instance"]) as connection:
        connection.register("found", found)
        for row in arrow(connection, _INSTANCES).to_pylist():
            key = (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"])
            held.setdefault((row["source"], key[0]), []).append(LakeInstance(key, row["version_at"]))
    return held


def repair(client: ServiceClient, lake: Lake, findings: Iterable[Finding], audit_id: str) -> Landed:
    """Lands what makes the lake agree with the service in these studies: a targeted batch, claimed like any other.

    Raises ServiceError and its kinds, LandingUnwritable, LakeError.
    """
    listed = list(findings)
    held = lake_instances(lake, listed)
    return land(client.service, repair_path(audit_id), None, repair_pages(client, listed, held), "repair")
