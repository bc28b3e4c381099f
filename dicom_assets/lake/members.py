"""Which studies single files of a table hold: a file is never changed, so what was read of it once holds for ever.

Belongs here: the keys of files, read or told by whoever wrote them, kept in this process. Does not belong here: the
ranges that the log tells of files without opening any (`extents`), reading rows (`query`).

A file's range says little where files overlap, as they do in the upper nodes of the tree; a batch asks for its studies
some ten times, and opening such files to find nothing is most of what a large lake would cost it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dicom_assets.lake.extents import Extents, Within
from dicom_assets.lake.positions import order_of, placed, positions
from dicom_assets.schema.registry import TABLES

if TYPE_CHECKING:
    from dicom_assets.lake.delta import Lake

KEPT_FILES = 50_000
"""Files whose keys are kept: some hundred bytes each, for large tables some kilobytes."""

Keys = npt.NDArray[np.bytes_]
"""Positions of a file's studies, sorted."""

_known: dict[str, Keys] = {}
_writing = Lock()


def tell(path: str, places: Iterable[str]) -> None:
    """Enters a file by its name, with the positions of its rows."""
    with _writing:
        _known[path] = np.unique(np.array(list(places), dtype="S16"))
        while len(_known) > KEPT_FILES:
            del _known[next(iter(_known))]


def holders(lake: Lake, name: str, paths: Sequence[str], keys: Iterable[str]) -> list[npt.NDArray[np.bool_]]:
    """For each file of a table that is replaced by study, which of the keys (in their order) it holds."""
    unknown = [path for path in paths if path not in _known]
    if unknown:
        _read(lake, name, unknown)
    wanted = np.array(positions(name, keys), dtype="S16")
    return [_among(_known[path], wanted) if path in _known else np.ones(len(wanted), bool) for path in paths]


def homes(lake: Lake, name: str, known: Extents, within: Within) -> dict[str, list[str]]:
    """By key of a table that is replaced by study, the files that hold it, sorted, among those that may by the log.

    within: the keys, as values of the column that the table is replaced by, and values of other columns.
    """
    keys = list(dict.fromkeys(within[TABLES[name].replaced_by]))
    may = known.within(within) & placed(name, known).may_hold(order_of(name), positions(name, keys))
    paths = sorted(known.paths[may].tolist())
    found: dict[str, list[str]] = {key: [] for key in keys}
    for path, held in zip(paths, holders(lake, name, paths, keys), strict=True):
        for at in np.flatnonzero(held).tolist():
            found[keys[at]].append(path)
    return found


def _among(held: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    if not len(held):
        return np.zeros(len(wanted), dtype=bool)
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.asarray(held[at] == wanted, dtype=bool)


def _read(lake: Lake, name: str, paths: Sequence[str]) -> None:
    from dicom_assets.lake.query import arrow, connected, scan  # it builds on this module

    column = TABLES[name].replaced_by
    with connected(lake) as connection:
        source = scan(lake, name, paths=paths, filename=True)
        found = arrow(
            connection,
            f"SELECT parse_filename(filename) AS file, {column} AS key FROM {source} GROUP BY ALL ORDER BY ALL",
        )
    by_name = {path.rsplit("/", 1)[-1]: path for path in paths}
    files = np.asarray(found["file"].to_pylist(), dtype=object)
    places = np.array(positions(name, found["key"].to_pylist()), dtype="S16")
    edges = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)] if len(files) else []
    for path in paths:
        tell(path, ())
    for start, end in pairwise(edges):
        tell(by_name[files[start]], places[start:end].astype(str).tolist())
