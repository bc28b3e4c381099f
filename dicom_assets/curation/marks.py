"""Marks: keyed hashes of values, so that tables can tell different values apart without holding any.

Belongs here: the key, one mark, and counting different ones. Does not belong here: what is marked.

A bare hash of a PatientID or a name is no secret, see `landing.refusals`; the key is made from the one by which that
recognises what was erased. Different values are counted from the smallest marks of a set (K minimum values; Bar-Yossef
et al., Counting Distinct Elements in a Data Stream, 2002): sets are merged by merging their smallest marks, whatever
the order, so parts can be added up again and again with the same result. Up to K - 1 the count is exact, above it the
standard error is 1 / sqrt(K - 2), 13 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from heapq import nsmallest

from dicom_assets.landing.refusals import make_key
from dicom_assets.storage.files import LakeFiles

KEPT = 64
"""Marks of a set that are kept (K)."""
BITS = 63
"""Of a mark: it is stored as a signed integer that is not negative."""
_KEY_BYTES = 32


class Marker:
    """Makes marks with the key of one lake. name: tells keys apart, and says nothing of them."""

    def __init__(self, key: bytes) -> None:
        """key: secret."""
        self._key = hashlib.blake2b(b"curation", key=key, digest_size=_KEY_BYTES).digest()
        self.name = hashlib.blake2b(b"name", key=self._key, digest_size=4).hexdigest()

    def mark(self, said: bytes) -> int:
        """The mark of a value."""
        digest = hashlib.blake2b(said, key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


def marker(files: LakeFiles) -> Marker:
    """That of a lake, whose key is made when there is none. Raises LakeError."""
    return Marker(make_key(files))


def smallest(marks: Iterable[int]) -> list[int]:
    """The marks of a set that are kept, in order."""
    return nsmallest(KEPT, set(marks))


def merged_sql(column: str) -> str:
    """SQL of an aggregate: the marks of several sets that are kept of all of them together; NULL where none are."""
    return f"list_sort(list_distinct(flatten(list({column}) FILTER ({column} IS NOT NULL))))[1:{KEPT}]"


def distinct_sql(marks: str) -> str:
    """SQL for how many different values a set has of which these marks are kept."""
    many = f"round({KEPT - 1} * pow(2.0, {BITS}) / {marks}[{KEPT}])::BIGINT"
    return f"CASE WHEN len({marks}) < {KEPT} THEN len({marks}) ELSE {many} END"
