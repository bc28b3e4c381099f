"""Which claims had a uri before: the index by which a batch finds what it overwrites, without reading every claim.

Belongs here: the digests of claimed uris with the numbers of their claims. Does not belong here: the claim log that
they are made from and that alone decides (`claims`), what becomes of what was overwritten (`lake.overwritten`).

A summary `_places/{n}/uris.bin` stands for the claims 1 to n: fourteen bytes for each claimed object, sorted: ten of
the digest of source and uri, four of the claim's number. It is made anew some hundred claims later; meanwhile
`_places/{m}/since-{n}.bin` stands for those behind it, up to m, so that a process that takes one batch has ten claims
to read at most. Both are caches: one that is torn, or of other claims, is not as long as their objects ask for, and
the claims are read instead.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.landing.claim_index import Claim
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.storage.files import LakeFiles

FOLDER = "_places"
SUMMARISE_AFTER = 100
"""Claims after which their summary is made anew."""
KEEP_AFTER = 10
"""Claims after which what stands for those behind the summary is written."""

_DIGEST_BYTES, _BYTES = 10, 14
_NUMBER = re.compile(r"/(\d{12})[./]").search
_SINCE = re.compile(r"/since-(\d{12})\.bin$").search

Run = npt.NDArray[np.bytes_]
"""Digests with numbers of claims, fourteen bytes each, sorted."""


class UriIndex:
    """The claimed uris of one lake. Not for two threads at once."""

    def __init__(self, files: LakeFiles, log: ClaimLog) -> None:
        """Reads nothing before it is asked."""
        self._files = files
        self._log = log
        self._upto = self._kept = self._summarised = 0
        self._runs: list[Run] = []

    def before(self, batch_id: str) -> Mapping[str, Sequence[str]]:
        """The uris of a batch that earlier batches had claimed, each with these batches, oldest first.

        Raises UnknownBatch, LakeError.
        """
        claims = self._log.claims()
        own = next((claim for claim in claims if claim.batch_id == batch_id), None)
        if own is None or len(claims) < 2:
            return {}
        self._read_on(claims)
        by_number = {_number(claim.path): claim.batch_id for claim in claims}
        uris, digests = self._digests(own)
        found: defaultdict[str, set[int]] = defaultdict(set)
        for run in self._runs:
            first = np.searchsorted(run, _with_number(digests, 0))
            last = np.searchsorted(run, _with_number(digests, _number(own.path)))
            for at in np.flatnonzero(last > first).tolist():
                found[uris[at]].update(_numbers(run[first[at] : last[at]]))
        return {uri: [by_number[number] for number in sorted(numbers)] for uri, numbers in found.items()}

    def _read_on(self, claims: Sequence[Claim]) -> None:
        if not self._runs:
            self._read_kept(claims)
        fresh = [self._run(claim) for claim in claims if _number(claim.path) > self._upto]
        if fresh:
            whole, newer = self._runs
            self._runs = [whole, np.sort(np.concatenate([newer, *fresh]), kind="stable")]
            self._upto = _number(claims[-1].path)
        if self._upto - self._summarised >= SUMMARISE_AFTER:
            self._summarise()
        elif self._upto - self._kept >= KEEP_AFTER:
            self._keep()

    def _read_kept(self, claims: Sequence[Claim]) -> None:
        names = self._files.names(FOLDER)
        self._runs = [np.empty(0, dtype=f"S{_BYTES}")] * 2
        whole = self._newest([name for name in names if not _SINCE(name)], 0, claims)
        if whole is not None:
            self._runs[0], self._upto = whole
        self._summarised = self._kept = self._upto
        behind = [name for name in names if (since := _SINCE(name)) and int(since[1]) == self._summarised]
        newer = self._newest(behind, self._summarised, claims)
        if newer is not None:
            self._runs[1], self._upto = newer
            self._kept = self._upto

    def _newest(self, names: Sequence[str], since: int, claims: Sequence[Claim]) -> tuple[Run, int] | None:
        """Of some files the newest that stands for all claims behind a number, and up to which."""
        for name in reversed(names):
            upto = _number(name)
            objects = sum(claim.objects for claim in claims if since < _number(claim.path) <= upto)
            run = self._open(name)
            if run is not None and run.nbytes == _BYTES * objects:
                return run, upto
        return None

    def _open(self, name: str) -> Run | None:
        """A summary: mapped where the lake is a folder, so that looking up a few uris reads a few pages of it."""
        root = self._files.local_root
        try:
            if root is None:
                return np.frombuffer(self._files.get(name), dtype=f"S{_BYTES}")
            return np.memmap(root / name, dtype=f"S{_BYTES}", mode="r")
        except (FileNotFoundError, ValueError):
            return None  # replaced by a newer one, or torn: of no whole number of entries, or of none

    def _summarise(self) -> None:
        whole = np.sort(np.concatenate(self._runs), kind="stable")
        self._write(f"{FOLDER}/{self._upto:012d}/uris.bin", whole)
        self._runs, self._summarised = [whole, whole[:0]], self._upto

    def _keep(self) -> None:
        self._write(f"{FOLDER}/{self._upto:012d}/since-{self._summarised:012d}.bin", self._runs[1])

    def _write(self, place: str, run: Run) -> None:
        """Writes a summary; the newest of its kind from before stays, for who reads it now."""
        before = [name for name in self._files.names(FOLDER) if bool(_SINCE(name)) == bool(_SINCE(place))]
        self._files.put(place, run.tobytes())
        for old in before[:-1]:
            self._files.delete(old.rpartition("/")[0])
        self._kept = self._upto

    def _digests(self, claim: Claim) -> tuple[list[str], Run]:
        rows = self._files.get_parquet(claim.path, ["source", "uri"])
        uris: list[str] = rows["uri"].to_pylist()
        return uris, np.frombuffer(_digested(rows["source"], uris), dtype=f"S{_DIGEST_BYTES}")

    def _run(self, claim: Claim) -> Run:
        _, digests = self._digests(claim)
        return np.sort(_with_number(digests, _number(claim.path)))


def _digested(sources: pa.ChunkedArray, uris: Sequence[str]) -> bytes:
    digest = hashlib.blake2b
    return b"".join(
        digest(f"{source}\0{uri}\0".encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).digest()
        for source, uri in zip(sources.to_pylist(), uris, strict=True)
    )


def _number(path: str) -> int:
    """The number in the path of a claim or of a summary."""
    found = _NUMBER(path)
    if found is None:
        raise AssertionError("claims and their summaries are numbered")
    return int(found[1])


def _with_number(digests: Run, number: int) -> Run:
    """Digests with the number of a claim behind each."""
    rows = np.empty((len(digests), _BYTES), dtype=np.uint8)
    rows[:, :_DIGEST_BYTES] = np.ascontiguousarray(digests).view(np.uint8).reshape(-1, _DIGEST_BYTES)
    rows[:, _DIGEST_BYTES:] = np.frombuffer(number.to_bytes(_BYTES - _DIGEST_BYTES, "big"), dtype=np.uint8)
    return rows.view(f"S{_BYTES}").ravel()


def _numbers(entries: Run) -> list[int]:
    """The numbers of claims behind digests."""
    rows = np.ascontiguousarray(entries).view(np.uint8).reshape(-1, _BYTES)[:, _DIGEST_BYTES:]
    return [int.from_bytes(row.tobytes(), "big") for row in rows]
