"""In which attributes objects differ from the first of their group, by their headers; no value is told.

Belongs here: comparing headers element by element, a bounded number in memory. Does not belong here: which objects are
compared (`duplicates`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
from pydicom.datadict import keyword_for_tag

from dicom_assets.curation.element_paths import cut
from dicom_assets.dicom.stable import comparable
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import KeptHeaders, headers

AT_ONCE = 5_000
"""Objects whose elements are in memory together, as one number each: some 10 MB."""

TRANSFER_SYNTAX = "TransferSyntaxUID"
PIXELS = frozenset(("7FE00008", "7FE00009", "7FE00010"))
"""Keys of pixel data, of which the length alone counts (`dicom.stable.comparable`)."""
_KEY = len("00080018")
_REFERENCE = '"BulkDataURI":"?'


class ObjectName(NamedTuple):
    """What names a row of flat_metadata."""

    batch_id: str
    object_id: str


Pair = tuple[ObjectName, ObjectName]
"""An object, and the one that it is compared with."""


def differences(lake: Lake, pairs: Sequence[Pair], kept: KeptHeaders | None = None) -> Mapping[Pair, Sequence[str]]:
    """By pair the keywords of the attributes in which the two differ, in the order of their tags. Raises LakeError.

    kept: headers that were read before.

    Of File Meta Information the transfer syntax alone counts: each software writes the rest anew. Attributes without
    keyword, private ones among them, are told by their tag: eight hexadecimal digits. Bulk values count by their
    length. Items of a sequence are not told apart.
    """
    found: dict[Pair, Sequence[str]] = {}
    names: dict[str, str | None] = {}
    for some in _portions(pairs):
        keys: dict[int, str] = {}
        said = _said(lake, {name for pair in some for name in pair}, keys, kept)
        for pair in some:
            one, other = ({*said.get(name, ())} for name in pair)
            differing = sorted({keys[number] for number in one ^ other})
            names |= {key: _name(key) for key in differing if key not in names}
            found[pair] = [name for key in differing if (name := names[key]) is not None]
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


def _said(
    lake: Lake, names: Iterable[ObjectName], keys: dict[int, str], kept: KeptHeaders | None
) -> dict[ObjectName, Sequence[int]]:
    """By object a number for each element of its header. keys: gets, by number, the element's key of DICOM JSON."""
    found: dict[ObjectName, Sequence[int]] = {}
    for name, header in _headers(lake, sorted(names), kept):
        texts = _texts(header) if header else ()
        own = array("q", map(hash, texts))
        keys.update((number, text[:_KEY]) for number, text in zip(own, texts, strict=True) if number not in keys)
        found[name] = own
    return found


def _headers(
    lake: Lake, names: Sequence[ObjectName], kept: KeptHeaders | None
) -> Iterator[tuple[ObjectName, str | None]]:
    """Some objects, sorted, with their headers: those that are kept, and then the others as they are read."""
    known: Mapping[tuple[str, str], str] = {}
    if kept is not None and kept.version == lake.extents("flat_metadata").version:
        known = kept.texts
    yield from ((name, known[name]) for name in names if name in known)
    others = [name for name in names if name not in known]
    if others:
        columns = {field: pa.array([getattr(one, field) for one in others]) for field in ObjectName._fields}
        for rows in headers(lake, pa.table(columns)):
            for batch, one, header in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
                yield ObjectName(batch, one), header


def _texts(header: str) -> list[str]:
    """What each element of a header says, behind its key: of what lies elsewhere, all but where."""
    flat, sequences = cut(header)
    texts = flat + [text[1:] for text in sequences]
    if _REFERENCE in header or any(key in header for key in PIXELS):
        texts = [
            comparable(f'"{text}'.encode()).decode()[1:] if _REFERENCE in text or text[:_KEY] in PIXELS else text
            for text in texts
        ]
    return texts


def _name(key: str) -> str | None:
    """What an element is called; None for File Meta Information."""
    name = keyword_for_tag(int(key, 16)) or key
    return None if key.startswith("0002") and name != TRANSFER_SYNTAX else name
