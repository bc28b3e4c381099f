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

from dicom_assets.lake.files import arrow_bytes

Homes = Mapping[str, Sequence[str]]
"""By study, the paths of the files that hold it, sorted; none for studies that no file holds."""

KEPT_BYTES = 64 << 20
"""What the rows of one table may take, compressed; more are read again."""


@dataclass(frozen=True)
class _Recent:
    homes: Homes
    rows: bytes


_kept: dict[tuple[str, str], _Recent] = {}
_writing = Lock()


def keep(uri: str, name: str, homes: Homes, rows: pa.Table) -> None:
    """Keeps the rows of some studies in a table of a lake instead of those that were kept of it before.

    homes: of every study, those without rows as well, right after the commit that wrote them. rows: all of theirs.
    """
    recent = _Recent(homes, arrow_bytes(rows))
    with _writing:
        _kept.pop((uri, name), None)
        if len(recent.rows) <= KEPT_BYTES:
            _kept[uri, name] = recent


def rows_of(uri: str, name: str, homes: Homes) -> pa.Table | None:
    """The kept rows of a table, when they are all rows of these studies (others may be among them); None otherwise.

    homes: of every study that is asked for, as the table is now.
    """
    recent = _kept.get((uri, name))
    if recent is None or any(list(recent.homes.get(key, ())) != list(paths) for key, paths in homes.items()):
        return None
    return pa.ipc.open_file(recent.rows).read_all()


def forget(uri: str) -> None:
    """Lets go of everything that is kept of a lake."""
    with _writing:
        for key in [key for key in _kept if key[0] == uri]:
            del _kept[key]
