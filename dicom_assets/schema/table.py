"""What a table of the lake is: its columns with their types and descriptions, its grain and its key.

Belongs here: the two types that the registry is made of. Does not belong here: any table (`schema.registry` and the
modules that it takes in).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Arrow type, whether NULL may stand in it, and what it holds, in a sentence.

    sources: upstream columns as (table, column), for lineage.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def field(self) -> pa.Field:
        """The column as an Arrow field."""
        return pa.field(self.name, self.type, self.nullable)


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table at `{lake}/{name}`.

    grain: what one row stands for. key: columns that are unique together. upstream: tables it is made from.
    replaced_by: column whose values name the rows that a publication replaces (`batch_id`, `study_key`, …).
    """

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    description: str
    replaced_by: str
    upstream: tuple[str, ...] = ()
    schema: pa.Schema = field(init=False, repr=False, compare=False)
    """The table's Arrow schema."""
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the table against itself: a key or a repeated name that is wrong fails at import."""
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: a column name stands twice")
        object.__setattr__(self, "_names", frozenset(names))
        object.__setattr__(self, "schema", pa.schema([column.field for column in self.columns]))
        missing = set(self.key) | {self.replaced_by}
        if not missing <= self._names:
            raise ValueError(f"{self.name}: {missing - self._names} are no columns")

    def column(self, name: str) -> Column:
        """One column by name; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        """Whether the table has a column of this name."""
        return name in self._names
