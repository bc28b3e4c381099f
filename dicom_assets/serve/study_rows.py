"""What metadata need of the rows of a study's instances, looked up once as long as the tables stay as they are.

Belongs here: which instances a study, a series, an instance has. Does not belong here: where their objects lie
(`places`), their headers (`metadata`).

A viewer asks for one series of a study after the other, some clients for one instance after the other: so the rows of
a study are looked up together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dicom_assets.lake.quoting import named
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.call import Call
from dicom_assets.serve.kept import Kept
from dicom_assets.serve.newest import newest
from dicom_assets.serve.places import METADATA, UIDS
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Snapshot

MOST = 2_000
"""Rows of a study that are looked up together; of a larger one, those that are asked for."""

_KEPT_BYTES = 16 << 20
_ROW_BYTES = 2_000
_TABLES = ("study", "instance")
"""Tables that rows are found in, `study` for the condition of a scope."""

Name = tuple[str, str]
"""Of an object: batch and object_id."""

Rows = Mapping[Name, Mapping[str, Any]]
"""By object, the columns `places.METADATA` of `instance`."""


class StudyRows:
    """What is kept of rows. kept: by versions, scope and study."""

    def __init__(self) -> None:
        """Keeps nothing yet."""
        self.kept: Kept[Rows] = Kept(_KEPT_BYTES)


def rows_of(call: Call, snapshot: Snapshot) -> Rows:
    """The rows of the instances that a call names, never two of one UID. Raises Refusal (404). Blocks."""
    kept = call.served.part(StudyRows).kept
    uids = call.uids
    key = tuple(snapshot.extents[name].version for name in _TABLES), snapshot.scope, uids["study"]
    rows = kept.get(key)
    if rows is None:
        rows = _looked_up(snapshot, {"study": uids["study"]}, MOST + 1)
        if len(rows) > MOST:
            rows = _looked_up(snapshot, uids)
        else:
            kept.keep(key, rows, _ROW_BYTES * (1 + len(rows)))
    for kind, uid in uids.items():
        if kind != "study":
            rows = {name: row for name, row in rows.items() if row[UIDS[kind]] == uid}
    if not rows:
        raise not_found([*uids][-1])
    return rows


def _looked_up(snapshot: Snapshot, uids: Mapping[str, str], most: int | None = None) -> Rows:
    found = newest(snapshot, Level.INSTANCE, uids, columns=METADATA)
    limit = f"LIMIT {most}" if most is not None else ""
    with snapshot.cursor() as connection:
        rows = connection.execute(
            f"""
            -- one row per instance, in no order
            SELECT {", ".join(map(named, METADATA))} FROM {found.sql} AS instance {limit}
            """,
            [*found.parameters],
        ).fetchall()
    listed = [dict(zip(METADATA, row, strict=True)) for row in rows]
    return {(row["batch_id"], row["object_id"]): row for row in listed}
