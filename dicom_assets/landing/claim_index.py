"""Which objects are claimed: ids packed to ten bytes each, and the summary by which a tick need not read every claim.

Belongs here: the set of claimed ids, and the summary of the oldest claims. Does not belong here: the claim log that the
summary is made from and that alone decides (`claims`).

A summary `_claimed/{n}/` stands for the claims 1 to n: the sorted ids of each source, ten bytes an object, how often
those objects were claimed that were claimed more than once, and one row a claim. It is written once, its list of claims
last, and made anew some hundred claims later; whoever finds none reads the claims themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.schema.registry import TIMESTAMP
from dicom_assets.storage.files import LakeFiles, TornFile

FOLDER = "_claimed"
_ID_BYTES = 10
_LIST = "claims.parquet"
_AGAIN = "again.parquet"
_COMPLETE = re.compile(rf"^{FOLDER}/(\d{{12}})/{re.escape(_LIST)}$")
_SCHEMA = pa.schema(
    [
        pa.field("batch_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("objects", pa.int64()),
        pa.field("claimed_at", TIMESTAMP),
        pa.field("path", pa.string()),
    ]
)

_AGAIN_SCHEMA = pa.schema([pa.field("object_id", pa.string()), pa.field("attempt", pa.int64())])

PackedIds = npt.NDArray[np.bytes_]
"""object_ids as ten bytes each."""


class Claim(NamedTuple):
    """One batch as the log has it."""

    batch_id: str
    source: str
    objects: int
    claimed_at: datetime
    path: str


def pack_ids(ids: pa.Array | pa.ChunkedArray) -> PackedIds:
    """object_ids (20 hexadecimal characters) as ten bytes each."""
    return ids_of_digests(bytes.fromhex("".join(ids.to_pylist())))


def ids_of_digests(digests: bytes) -> PackedIds:
    """object_ids that are bytes already, ten each."""
    return np.frombuffer(digests, dtype=f"S{_ID_BYTES}")


def unpack_ids(ids: PackedIds) -> pa.Array:
    """The object_ids as text again."""
    text, length = ids.tobytes().hex(), 2 * _ID_BYTES
    return pa.array([text[at : at + length] for at in range(0, len(text), length)], pa.string())


class _Run:
    """Sorted ids in which some are looked for.

    Numbers are found several times as fast as bytes, so the first eight bytes of each id become one as soon as so many
    ids are asked for that it pays. A few are looked up as they are, which reads little of a run that lies in a file.
    """

    def __init__(self, ids: PackedIds) -> None:
        self.ids = ids
        self._heads: npt.NDArray[np.uint64] | None = None
        self._asked = 0

    def holds(self, wanted: PackedIds, heads: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Whether each of the ids is there. wanted: sorted; heads: their first eight bytes."""
        self._asked += len(wanted)
        if self._heads is None and self._asked * _HEADS_PAY > len(self.ids):
            self._heads = _heads_of(self.ids)
        if self._heads is None:
            return self._found(np.searchsorted(self.ids, wanted), wanted)
        at = np.searchsorted(self._heads, heads)
        held = self._found(at, wanted)
        # Two ids of one head: one in ten million million. The first of them was compared, the others are looked up.
        alike = np.flatnonzero(~held & (self._heads[np.minimum(at, len(self._heads) - 1)] == heads))
        if len(alike):
            held[alike] = self._found(np.searchsorted(self.ids, wanted[alike]), wanted[alike])
        return held

    def _found(self, at: npt.NDArray[np.intp], wanted: PackedIds) -> npt.NDArray[np.bool_]:
        return np.asarray(self.ids[np.minimum(at, len(self.ids) - 1)] == wanted, dtype=bool)


_HEADS_PAY = 20
_AT_ONCE = 1_000_000


def _heads_of(ids: PackedIds) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each id as a number of the same order."""
    heads = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _AT_ONCE):
        part = np.ascontiguousarray(ids[start : start + _AT_ONCE]).view(np.uint8).reshape(-1, _ID_BYTES)
        heads[start : start + len(part)] = np.ascontiguousarray(part[:, :8]).view(">u8").ravel()
    return heads


class ClaimedIds:
    """The object_ids that are claimed: ten bytes each, in some sorted runs."""

    def __init__(self, ids: Iterable[pa.Array | pa.ChunkedArray] = (), runs: Iterable[PackedIds] = ()) -> None:
        """Takes arrays of object_ids, and runs that are sorted already."""
        parts = [pack_ids(part) for part in ids]
        sorted_runs = (*runs, np.sort(np.concatenate(parts)) if parts else _EMPTY)
        self._runs = [_Run(run) for run in sorted_runs if len(run)]

    def __len__(self) -> int:
        return sum(len(run.ids) for run in self._runs)

    def missing(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """For each id, whether it is not claimed."""
        return self.lacks(pack_ids(ids))

    def lacks(self, ids: PackedIds) -> npt.NDArray[np.bool_]:
        """The same for packed ids."""
        heads = _heads_of(ids)
        order = np.argsort(heads)
        wanted, heads = ids[order], heads[order]
        held = np.zeros(len(ids), dtype=bool)
        for run in self._runs:
            held |= run.holds(wanted, heads)
        lacks = np.empty(len(ids), dtype=bool)
        lacks[order] = ~held
        return lacks

    def sorted(self) -> PackedIds:
        """All of them as one sorted run."""
        return np.sort(np.concatenate([run.ids for run in self._runs]), kind="stable") if self._runs else _EMPTY


_EMPTY: PackedIds = np.empty(0, dtype=f"S{_ID_BYTES}")


class Summary:
    """What the newest summary says; nothing when there is none.

    number: the last claim that it stands for.
    """

    def __init__(self, files: LakeFiles) -> None:
        """Finds the newest complete summary."""
        self._files = files
        self._read: dict[str, PackedIds] = {}
        self._attempts: Mapping[str, int] | None = None
        self.number, self.claims = 0, []
        complete = [int(match[1]) for match in map(_COMPLETE.match, files.names(FOLDER)) if match]
        for number in sorted(complete, reverse=True):
            try:
                rows = files.get_parquet(f"{FOLDER}/{number:012d}/{_LIST}")
            except (FileNotFoundError, TornFile):
                continue  # a newer one has replaced it since, or a power cut has torn it
            claims = [Claim(*row) for row in _rows(rows)]
            if not self._is_whole(number, claims):
                continue
            self.number, self.claims = number, claims
            return

    number: int
    claims: list[Claim]

    def _is_whole(self, number: int, claims: Sequence[Claim]) -> bool:
        """Whether as many ids are there as were claimed: whoever misses some claims objects a second time."""
        root = self._files.local_root
        if root is None:
            return True
        objects: Counter[str] = Counter()
        for claim in claims:
            objects[claim.source] += claim.objects
        places = {source: root / _ids_path(number, source) for source in objects}
        return all(
            place.exists() and place.stat().st_size == objects[source] * _ID_BYTES for source, place in places.items()
        )

    def ids(self, source: str) -> PackedIds:
        """The sorted ids of a source. Raises FileNotFoundError when a newer summary has replaced this one."""
        if source not in self._read:
            known = any(claim.source == source for claim in self.claims)
            self._read[source] = self._open(_ids_path(self.number, source)) if known else _EMPTY
        return self._read[source]

    def attempts(self) -> Mapping[str, int]:
        """How often objects were claimed that were claimed more than once.

        Raises FileNotFoundError when a newer summary has replaced this one.
        """
        if self._attempts is None:
            self._attempts = self._read_attempts() if self.number else {}
        return self._attempts

    def _read_attempts(self) -> Mapping[str, int]:
        folder = f"{FOLDER}/{self.number:012d}"
        try:
            rows = self._files.get_parquet(f"{folder}/{_AGAIN}")
        except FileNotFoundError:
            if self._files.exists(f"{folder}/{_LIST}"):
                return {}  # of a release that claimed nothing again
            raise
        return dict(zip(*rows.to_pydict().values(), strict=True))

    def _open(self, path: str) -> PackedIds:
        """Ids in a file: mapped where the lake is a folder, so that looking up a few reads a few pages of it."""
        root = self._files.local_root
        if root is None:
            return ids_of_digests(self._files.get(path))
        return np.memmap(root / path, dtype=f"S{_ID_BYTES}", mode="r")


def _rows(claims: pa.Table) -> Iterable[tuple[str, str, int, datetime, str]]:
    columns = (claims[name].to_pylist() for name in Claim._fields)
    return zip(*columns, strict=True)


def _ids_path(number: int, source: str) -> str:
    return f"{FOLDER}/{number:012d}/{source}.ids"


def summarise(
    files: LakeFiles,
    number: int,
    claims: Sequence[Claim],
    ids: Mapping[str, ClaimedIds],
    attempts: Mapping[str, int],
) -> None:
    """Writes the summary of the claims 1 to `number`, and deletes all but the one before. Raises LakeError."""
    again = pa.table({"object_id": list(attempts), "attempt": list(attempts.values())}, schema=_AGAIN_SCHEMA)
    files.put_parquet(f"{FOLDER}/{number:012d}/{_AGAIN}", again)
    for source, claimed in ids.items():
        files.put(_ids_path(number, source), claimed.sorted().tobytes())
    rows = pa.Table.from_pylist([claim._asdict() for claim in claims], schema=_SCHEMA)
    files.put_parquet(f"{FOLDER}/{number:012d}/{_LIST}", rows)
    numbers = sorted({int(match[1]) for match in map(_COMPLETE.match, files.names(FOLDER)) if match})
    for old in numbers[:-2]:
        files.delete(f"{FOLDER}/{old:012d}")
