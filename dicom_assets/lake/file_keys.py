"""Which keys single files of a table hold: a file is never changed, so what was read of it once holds for ever.

Belongs here: the keys of the files of one lake, read or told by whoever wrote them. Does not belong here: the ranges
that the log tells of files without opening any (`extents`), reading files (`tables`).

A file's range says little where files overlap, as they do in the upper nodes of the tree; a batch asks for its studies
some ten times, and opening such files to find nothing is most of what a large lake would cost it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.lake.extents import Extents, Within
from dicom_assets.lake.positions import add_positions, order_of, positions
from dicom_assets.schema.registry import TABLES

MOST_FILES = 50_000
"""Files whose keys are kept: some hundred bytes each, for large tables some kilobytes."""

Keys = npt.NDArray[np.bytes_]
"""Positions of a file's keys, sorted."""


class FileKeys:
    """The keys of files of one lake. Threads may share it."""

    def __init__(self, read: Callable[[str, Sequence[str]], pa.Table]) -> None:
        """read: of some files of a table, by name and paths, the columns file (its name alone) and key, in order."""
        self._read = read
        self._known: dict[str, Keys] = {}
        self._writing = Lock()

    def enter(self, path: str, places: Iterable[str]) -> None:
        """Enters a file by its path, with the positions of its rows."""
        with self._writing:
            self._known[path] = np.unique(np.array(list(places), dtype="S16"))
            while len(self._known) > MOST_FILES:
                del self._known[next(iter(self._known))]

    def holders(self, name: str, paths: Sequence[str], keys: Iterable[str]) -> list[npt.NDArray[np.bool_]]:
        """For each file of a table that is replaced by study, which of the keys (in their order) it holds."""
        return self._holders(name, paths, positions(name, keys))

    def _holders(self, name: str, paths: Sequence[str], places: Sequence[str]) -> list[npt.NDArray[np.bool_]]:
        self._learn(name, [path for path in paths if path not in self._known])
        wanted = np.array(places, dtype="S16")
        found = [self._known.get(path) for path in paths]
        return [np.ones(len(wanted), bool) if one is None else _among(one, wanted) for one in found]

    def homes(self, name: str, known: Extents, within: Within) -> dict[str, list[str]]:
        """By key of a table that is replaced by study, the files that hold it, sorted, among those that may by the log.

        within: the keys, as values of the column that the table is replaced by, and values of other columns.
        """
        keys = list(dict.fromkeys(within[TABLES[name].replaced_by]))
        places = positions(name, keys)
        may = known.within(within) & add_positions(name, known).may_hold(order_of(name), places)
        paths = sorted(known.paths[may].tolist())
        found: dict[str, list[str]] = {key: [] for key in keys}
        for path, held in zip(paths, self._holders(name, paths, places), strict=True):
            for at in np.flatnonzero(held).tolist():
                found[keys[at]].append(path)
        return found

    def _learn(self, name: str, paths: Sequence[str]) -> None:
        if not paths:
            return
        found = self._read(name, paths)
        by_name = {path.rsplit("/", 1)[-1]: path for path in paths}
        files = np.asarray(found["file"].to_pylist(), dtype=object)
        places = np.array(positions(name, found["key"].to_pylist()), dtype="S16")
        edges = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)] if len(files) else []
        for path in paths:
            self.enter(path, ())
        for start, end in pairwise(edges):
            self.enter(by_name[files[start]], places[start:end].astype(str).tolist())


def _among(held: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    if not len(held):
        return np.zeros(len(wanted), dtype=bool)
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.asarray(held[at] == wanted, dtype=bool)
