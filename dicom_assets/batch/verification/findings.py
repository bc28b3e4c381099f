"""What a rule found, and what of the lake it looks at.

Belongs here: findings, the closed batches that are looked at, and how tables are opened without their broken files.
Does not belong here: the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within
from dicom_assets.lake.query import scan
from dicom_assets.schema.registry import TABLES

SHOWN = 20
"""How many names a finding shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found. Names are ids of batches, object_ids and hashed keys, never patient data.

    differing: how many rows, files or batches. batches, studies: all that have to be made again. shown: some names.
    told: a sentence beside the number. is_note: nothing is wrong.
    """

    rule: str
    description: str
    differing: int = 0
    batches: Collection[str] = ()
    studies: Collection[str] = ()
    shown: Sequence[str] = ()
    told: str = ""
    is_note: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.is_note or not self.differing


@dataclass(frozen=True)
class Sound:
    """The tables of a lake that can be opened, without the files that cannot.

    unopened: sentences by table. broken: paths of data files by table that are missing or torn.
    """

    lake: Lake
    unopened: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, Collection[str]] = field(default_factory=dict)

    def opens(self, *tables: str) -> bool:
        """Whether all of some tables can be opened."""
        return not any(name in self.unopened for name in tables)

    def source(self, name: str, within: Within | None = None) -> str:
        """SQL for a FROM clause; within: only files that can hold such rows are opened. Raises LakeError."""
        known = self.lake.extents(name)
        wanted = known.within(within) if within is not None else np.ones(len(known), bool)
        broken = self.broken.get(name, ())
        return scan(self.lake, name, paths=[path for path in known.paths[wanted].tolist() if path not in broken])

    def view(self, connection: duckdb.DuckDBPyConnection, name: str, within: Within | None = None) -> None:
        """A table as a view; within: rows with these values alone."""
        where = ""
        if within is not None:
            for column, values in within.items():
                connection.execute(f"CREATE OR REPLACE TEMP TABLE within_{name} ({column} VARCHAR)")
                connection.executemany(f"INSERT INTO within_{name} VALUES (?)", [[value] for value in values])
                where = f" SEMI JOIN within_{name} USING ({column})"
        connection.execute(f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT * FROM {self.source(name, within)}{where}')


def batch_tables() -> list[str]:
    """Tables whose rows each belong to a batch."""
    return [name for name, table in TABLES.items() if table.replaced_by == "batch_id" and name != "batches"]
