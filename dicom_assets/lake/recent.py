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

from dicom_assets.lake.files import arrow_bytes
from dicom_assets.lake.registry import TABLES

Homes = Mapping[str, Sequence[str]]
"""By study, the paths of the files that hold it, sorted; none for studies that no file holds."""

KEPT_BYTES = 16 << 20
"""What the rows of one table may take, compressed; those that were written first are let go for more."""


@dataclass(frozen=True)
class _Recent:
    homes: Homes
    rows: bytes


_kept: dict[tuple[str, str], list[_Recent]] = {}
_writing = Lock()


def keep(uri: str, name: str, homes: Homes, rows: pa.Table) -> None:
    """Keeps the rows of some studies in a table of a lake.

    homes: of every study, those without rows as well, right after the commit that wrote them. rows: all of theirs.
    """
    schema = TABLES[name].schema
    recent = _Recent(homes, arrow_bytes(rows.select(schema.names).cast(schema)))
    with _writing:
        kept = [*_kept.get((uri, name), ()), recent]
        while sum(len(one.rows) for one in kept) > KEPT_BYTES:
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
            rows = pa.ipc.open_file(recent.rows).read_all()
            # What was written of other studies then may be outdated.
            found.append(rows.filter(pc.is_in(rows[table.replaced_by], pa.array(own, pa.string()))))
            left = {key: paths for key, paths in left.items() if key not in own}
    return None if left else pa.concat_tables(found)


def forget(uri: str) -> None:
    """Lets go of everything that is kept of a lake."""
    with _writing:
        for key in [key for key in _kept if key[0] == uri]:
            del _kept[key]
