"""What one backup is: files with their digests, versions of tables, and what was running meanwhile.

Belongs here: the manifest and its bytes. Does not belong here: making one (`copy_out`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
STATE = "dagster"
"""What the paths of Dagster's state begin with; all others are below the lake's root."""


@dataclass(frozen=True, slots=True)
class File:
    """One file. path: below the lake's root, or STATE. mark: what its storage changes with its bytes."""

    path: str
    size: int
    digest: str
    mark: str = ""


@dataclass(frozen=True)
class Manifest:
    """One backup. made_at in ISO form.

    lake: address that it was taken of. lake_format: see `lake.form`. tables: version of each. claims: how many. open:
    batches that were not closed. state: how Dagster's state was taken: `sqlite`, or `none`.
    """

    backup_id: str
    made_at: str
    made_by: str
    lake: str
    lake_format: int
    tables: Mapping[str, int]
    claims: int
    open: tuple[str, ...]
    state: str
    files: tuple[File, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """Length of all files together."""
        return sum(file.size for file in self.files)


def to_bytes(manifest: Manifest) -> bytes:
    """As JSON; the files as rows."""
    told = {**asdict(manifest), "format": FORMAT}
    told["files"] = [[file.path, file.size, file.digest, file.mark] for file in manifest.files]
    return json.dumps(told).encode()


def from_bytes(data: bytes) -> Manifest:
    """What `to_bytes` wrote. ValueError for another format."""
    told: dict[str, Any] = json.loads(data)
    if told.pop("format") != FORMAT:
        raise ValueError("a backup of another format")
    told["files"] = tuple(File(*row) for row in told["files"])
    told["open"] = tuple(told["open"])
    return Manifest(**told)
