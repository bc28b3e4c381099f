"""Which objects are claimed: ids packed to ten bytes each, and the summary by which a tick need not read every claim.

Belongs here: the set of claimed ids, and the summary of the oldest claims. Does not belong here: the claim log that the
summary is made from and that alone decides (`claims`).

A summary `_claimed/{n}/` stands for the claims 1 to n: the sorted ids of each source, ten bytes an object, and one row
a claim. It is written once, its list of claims last, and made anew some hundred claims later; whoever finds none reads
the claims themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.lake.files import LakeFiles
from dicom_assets.lake.registry import TIMESTAMP

FOLDER = "_claimed"
_ID_BYTES = 10
_LIST = "claims.parquet"
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

Packed = npt.NDArray[np.bytes_]
"""object_ids as ten bytes each."""


class Claim(NamedTuple):
    """One batch as the log has it."""

    batch_id: str
    source: str
    objects: int
    claimed_at: datetime
    path: str


def packed(ids: pa.Array | pa.ChunkedArray) -> Packed:
    """object_ids (20 hexadecimal characters) as ten bytes each."""
    return np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), dtype=f"S{_ID_BYTES}")


class ClaimedIds:
    """The object_ids that are claimed: ten bytes each, in some sorted runs."""

    def __init__(self, ids: Iterable[pa.Array | pa.ChunkedArray] = (), runs: Iterable[Packed] = ()) -> None:
        """Takes arrays of object_ids, and runs that are sorted already."""
        parts = [packed(part) for part in ids]
        self._runs = [run for run in (*runs, np.sort(np.concatenate(parts)) if parts else _EMPTY) if len(run)]

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def missing(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """For each id, whether it is not claimed."""
        wanted = packed(ids)
        lacks = np.ones(len(wanted), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, wanted), len(run) - 1)
            lacks &= run[at] != wanted
        return lacks

    def sorted(self) -> Packed:
        """All of them as one sorted run."""
        return np.sort(np.concatenate(self._runs), kind="stable") if self._runs else _EMPTY


_EMPTY: Packed = np.empty(0, dtype=f"S{_ID_BYTES}")


class Summary:
    """What the newest summary says; nothing when there is none.

    number: the last claim that it stands for.
    """

    def __init__(self, files: LakeFiles) -> None:
        """Finds the newest complete summary."""
        self._files = files
        self._read: dict[str, Packed] = {}
        self.number, self.claims = 0, []
        complete = [int(match[1]) for match in map(_COMPLETE.match, files.names(FOLDER)) if match]
        for number in sorted(complete, reverse=True):
            try:
                rows = files.get_parquet(f"{FOLDER}/{number:012d}/{_LIST}").to_pylist()
            except FileNotFoundError:
                continue  # a newer one has replaced it since
            self.number, self.claims = number, [Claim(**row) for row in rows]
            return

    number: int
    claims: list[Claim]

    def ids(self, source: str) -> Packed:
        """The sorted ids of a source. Raises FileNotFoundError when a newer summary has replaced this one."""
        if source not in self._read:
            known = any(claim.source == source for claim in self.claims)
            self._read[source] = (
                np.frombuffer(self._files.get(_ids_path(self.number, source)), dtype=f"S{_ID_BYTES}")
                if known
                else _EMPTY
            )
        return self._read[source]


def _ids_path(number: int, source: str) -> str:
    return f"{FOLDER}/{number:012d}/{source}.ids"


def summarise(files: LakeFiles, number: int, claims: Sequence[Claim], ids: Mapping[str, ClaimedIds]) -> None:
    """Writes the summary of the claims 1 to `number`, and deletes all but the one before. Raises LakeError."""
    for source, claimed in ids.items():
        files.put(_ids_path(number, source), claimed.sorted().tobytes())
    rows = pa.Table.from_pylist([claim._asdict() for claim in claims], schema=_SCHEMA)
    files.put_parquet(f"{FOLDER}/{number:012d}/{_LIST}", rows)
    numbers = sorted({int(match[1]) for match in map(_COMPLETE.match, files.names(FOLDER)) if match})
    for old in numbers[:-2]:
        files.delete(f"{FOLDER}/{old:012d}")
