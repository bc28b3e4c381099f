"""Which keys single files of a table hold: a file is never changed, so what was read of it once holds for ever.

Belongs here: the keys of the files of one lake, read or told by whoever wrote them, and keeping them in the lake. Does
not belong here: the ranges that the log tells of files without opening any (`extents`), reading files (`tables`).

A file's range says little where files overlap, as they do in the upper nodes of the tree; a batch asks for its studies
some ten times, and opening such files to find nothing is most of what a large lake would cost it. So what a process has
learned is kept for the next one, in an Arrow file a table. That is a cache: without it, or when a power cut has torn
it, files are opened again, and of two processes that write it at once one finds its answers another time.
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
from dicom_assets.storage.files import LakeFiles, TornFile, arrow_bytes

MOST_FILES = 50_000
"""Files whose keys are kept: some hundred bytes each, for large tables some kilobytes."""

FOLDER = "_file_keys"
"""Where they are kept in the lake."""

KEPT = pa.schema([pa.field("file", pa.string()), pa.field("keys", pa.binary())])
"""A file of a table by its path, and the positions of its rows, sorted, eight bytes each."""

WORTH_KEEPING = 16
"""Files learned, or a tenth of those that are kept, for which what is kept is written anew."""

Keys = npt.NDArray[np.uint64]
"""Positions of a file's keys, sorted."""


class FileKeys:
    """The keys of files of one lake. Threads may share it."""

    def __init__(self, files: LakeFiles, read: Callable[[str, Sequence[str]], pa.Table]) -> None:
        """read: of some files of a table, by name and paths, the columns file (its name alone) and key, in order."""
        self._files = files
        self._read = read
        self._known: dict[str, Keys | None] = {}
        self._kept: dict[str, set[str]] = {}
        self._homes: dict[str, tuple[Extents, list[str], dict[str, list[str]]]] = {}
        self._writing = Lock()

    def enter(self, path: str, places: Sequence[str]) -> None:
        """Enters a file by its path, with the positions of its rows."""
        numbers = _numbers(places)
        self._enter(path, None if numbers is None else np.unique(numbers))

    def _enter(self, path: str, keys: Keys | None) -> None:
        with self._writing:
            self._known[path] = keys
            while len(self._known) > MOST_FILES:
                del self._known[next(iter(self._known))]

    def holders(self, name: str, paths: Sequence[str], keys: Iterable[str]) -> list[npt.NDArray[np.bool_]]:
        """For each file of a table that is replaced by study, which of the keys (in their order) it holds."""
        return self._holders(name, paths, positions(name, keys))

    def _holders(self, name: str, paths: Sequence[str], places: Sequence[str]) -> list[npt.NDArray[np.bool_]]:
        self._learn(name, paths)
        wanted = _numbers(places)
        found = [self._known.get(path) for path in paths]
        return [
            np.ones(len(places), bool) if one is None or wanted is None else _among(one, wanted) for one in found
        ]  # fmt: skip

    def homes(self, name: str, known: Extents, within: Within) -> dict[str, list[str]]:
        """By key of a table that is replaced by study, the files that hold it, sorted, among those that may by the log.

        within: the keys, as values of the column that the table is replaced by, and values of other columns. The last
        answer for each table is kept, since all steps and rules of a batch ask for the same studies.
        """
        keys = list(dict.fromkeys(within[TABLES[name].replaced_by]))
        last = self._homes.get(name)
        if last is not None and last[0] is known and last[1] == keys and len(within) == 1:
            return last[2]
        places = positions(name, keys)
        may = known.within(within) & add_positions(name, known).may_hold(order_of(name), places)
        paths = sorted(known.paths[may].tolist())
        found: dict[str, list[str]] = {key: [] for key in keys}
        for path, held in zip(paths, self._holders(name, paths, places), strict=True):
            for at in np.flatnonzero(held).tolist():
                found[keys[at]].append(path)
        if len(within) == 1:
            self._homes[name] = known, keys, found
        return found

    def keep(self, name: str, known: Extents) -> None:
        """Keeps what is known of a table's files in the lake, once enough was learned. Raises LakeError."""
        self._recall(name)
        own = {path: keys for path in known.paths.tolist() if (keys := self._known.get(path)) is not None}
        kept = self._kept[name]
        if len(own.keys() - kept) < max(WORTH_KEEPING, len(kept) // 10):
            return
        rows = {"file": [*own], "keys": [keys.astype(">u8").tobytes() for keys in own.values()]}
        self._files.put(_place(name), arrow_bytes(pa.table(rows, schema=KEPT)), durable=False)
        self._kept[name] = {*own}

    def _recall(self, name: str) -> None:
        """Enters what is kept in the lake of a table, once."""
        if name in self._kept:
            return
        try:
            kept = pa.Table.from_batches(self._files.arrow_batches(_place(name)), KEPT)
        except (FileNotFoundError, TornFile):
            kept = KEPT.empty_table()
        for path, keys in zip(kept["file"].to_pylist(), kept["keys"].to_pylist(), strict=True):
            if path not in self._known:
                self._enter(path, np.frombuffer(keys, ">u8").astype(np.uint64))
        self._kept[name] = {*kept["file"].to_pylist()}

    def _learn(self, name: str, paths: Sequence[str]) -> None:
        if any(path not in self._known for path in paths):
            self._recall(name)
        unknown = [path for path in paths if path not in self._known]
        if not unknown:
            return
        found = self._read(name, unknown)
        by_name = {path.rsplit("/", 1)[-1]: path for path in unknown}
        files = np.asarray(found["file"].to_pylist(), dtype=object)
        places = positions(name, found["key"].to_pylist())
        edges = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)] if len(files) else []
        for path in unknown:
            self.enter(path, ())
        for start, end in pairwise(edges):
            self.enter(by_name[files[start]], places[start:end])


def _place(name: str) -> str:
    return f"{FOLDER}/{name}.arrow"


def _numbers(places: Sequence[str]) -> Keys | None:
    """Positions as integers; None where one of them is none, as of rows that another writer made."""
    try:
        whole = bytes.fromhex("".join(places))
    except (ValueError, TypeError):
        return None
    return np.frombuffer(whole, ">u8").astype(np.uint64) if len(whole) == 8 * len(places) else None


def _among(held: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    if not len(held):
        return np.zeros(len(wanted), dtype=bool)
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.asarray(held[at] == wanted, dtype=bool)
