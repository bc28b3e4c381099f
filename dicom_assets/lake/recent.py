"""Rows of studies that this process has just written, kept so that the next steps of a batch need not read them again.

Belongs here: keeping them, and whether they still are what the table says. Does not belong here: reading tables
(`query`), writing them (`rewrite`).

A file never changes. So the rows of a study are the ones that were written as long as it stands in the same files as
then, whoever has committed since; where it does not, they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import arrow_bytes

Homes = Mapping[str, Sequence[str]]
"""By study, the paths of the files that hold it, sorted; none for studies that no file holds."""

KEPT_BYTES = 16 << 20
"""What the rows of one table may take, compressed; those that were written first are let go for more."""

PLAIN_BYTES = 16 << 20
"""What the rows of all tables may take uncompressed: the next steps of a batch of usual size ask for all of them."""


@dataclass(frozen=True)
class _Recent:
    homes: Homes
    rows: bytes | pa.Table

    @property
    def size(self) -> int:
        """Bytes that the rows take as they are kept."""
        return len(self.rows) if isinstance(self.rows, bytes) else 0

    @property
    def plain_size(self) -> int:
        """Bytes that the rows take when they are not compressed, else none."""
        return 0 if isinstance(self.rows, bytes) else int(self.rows.nbytes)

    def table(self) -> pa.Table:
        """The rows."""
        return pa.ipc.open_file(self.rows).read_all() if isinstance(self.rows, bytes) else self.rows


_kept: dict[tuple[str, str], list[_Recent]] = {}
_writing = Lock()


def keep(uri: str, name: str, homes: Homes, rows: pa.Table) -> None:
    """Keeps the rows of some studies in a table of a lake.

    homes: of every study, those without rows as well, right after the commit that wrote them. rows: all of theirs.
    """
    schema = TABLES[name].schema
    rows = rows.select(schema.names).cast(schema)
    plain = sum(one.plain_size for kept in list(_kept.values()) for one in kept)
    recent = _Recent(homes, rows if plain + rows.nbytes <= PLAIN_BYTES else arrow_bytes(rows))
    with _writing:
        kept = [*_kept.get((uri, name), ()), recent]
        while sum(one.size for one in kept) > KEPT_BYTES:
            kept.pop(0)
        _kept[uri, name] = kept


def rows_of(uri: str, name: str, homes: Homes) -> pa.Table | None:
    """The kept rows of some studies in a table, when all of them are kept; None otherwise.

    homes: of every study that is asked for, as the table is now.
    """
    left = {key: list(paths) for key, paths in homes.items() if paths}
    table = TABLES[name]
    found = [table.schema.empty_table()]
    for recent in reversed(_kept.get((uri, name), [])):
        own = [key for key, paths in left.items() if list(recent.homes.get(key, ())) == paths]
        if own:
            rows = recent.table()
            if len(own) < len(recent.homes):  # what was written of other studies then may be outdated
                rows = rows.filter(pc.is_in(rows[table.replaced_by], pa.array(own, pa.string())))
            found.append(rows)
            left = {key: paths for key, paths in left.items() if key not in own}
    return None if left else pa.concat_tables(found)


def forget(uri: str) -> None:
    """Lets go of everything that is kept of a lake."""
    with _writing:
        for key in [key for key in _kept if key[0] == uri]:
            del _kept[key]
