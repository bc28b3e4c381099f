"""In which attributes objects differ from the first of their group, by their headers; no value is told.

Belongs here: comparing headers element by element, a bounded number in memory. Does not belong here: which objects are
compared (`duplicates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
from pydicom.datadict import keyword_for_tag

from dicom_assets.dicom.stable import comparable, elements
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import headers

AT_ONCE = 1_000
"""Objects whose elements are in memory together, as one number each."""

TRANSFER_SYNTAX = "TransferSyntaxUID"


class ObjectName(NamedTuple):
    """What names a row of flat_metadata."""

    batch_id: str
    object_id: str


Pair = tuple[ObjectName, ObjectName]
"""An object, and the one that it is compared with."""


def differences(lake: Lake, pairs: Sequence[Pair]) -> Mapping[Pair, Sequence[str]]:
    """By pair the keywords of the attributes in which the two differ, in the order of their tags. Raises LakeError.

    Of File Meta Information the transfer syntax alone counts: each software writes the rest anew. Attributes without
    keyword, private ones among them, are told by their tag: eight hexadecimal digits. Bulk values count by their
    length. Items of a sequence are not told apart.
    """
    found: dict[Pair, Sequence[str]] = {}
    names: dict[bytes, str | None] = {}
    for some in _portions(pairs):
        said = _said(lake, {name for pair in some for name in pair})
        for pair in some:
            one, other = said.get(pair[0], {}), said.get(pair[1], {})
            keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
            names |= {key: _name(key) for key in keys if key not in names}
            found[pair] = [name for key in keys if (name := names[key]) is not None]
    return found


def _portions(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    held: list[Pair] = []
    names: set[ObjectName] = set()
    for pair in pairs:
        held.append(pair)
        names.update(pair)
        if len(names) >= AT_ONCE:
            yield held
            held, names = [], set()
    if held:
        yield held


def _said(lake: Lake, names: Iterable[ObjectName]) -> dict[ObjectName, Mapping[bytes, int]]:
    """By object, what its header says: by key of DICOM JSON a number that stands for the element."""
    listed = sorted(names)
    columns = {field: pa.array([getattr(name, field) for name in listed], pa.string()) for field in ObjectName._fields}
    found: dict[ObjectName, Mapping[bytes, int]] = {}
    for rows in headers(lake, pa.table(columns)):
        for batch, one, header in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            members = elements(header[1:-1].encode()) if header else ()
            found[ObjectName(batch, one)] = {element[1:9]: hash(comparable(element)) for element in members}
    return found


def _name(key: bytes) -> str | None:
    """What an element is called; None for File Meta Information."""
    name = keyword_for_tag(int(key, 16)) or key.decode("ascii")
    return None if key.startswith(b"0002") and name != TRANSFER_SYNTAX else name
