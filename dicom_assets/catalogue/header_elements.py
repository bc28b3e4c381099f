"""A stored header as lines for people: every element with its name, nested ones below their sequence.

Belongs here: names, values as text, what matches a search. Does not belong here: reading the header (`instance_page`).

Names are those of PS3.6, of private elements those that pydicom's dictionary knows by creator; the creator is told by
the element that reserves the block (PS3.5 7.8.1).
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_description, keyword_for_tag, private_dictionary_description
from pydicom.uid import UID

from dicom_assets.dicom.references import NoReference, parse

LONGEST = 400
"""Characters of a value that are shown."""

_BYTES = 32
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Element:
    """One line.

    depth: of nesting, 0 for the object itself. tag: `(0010,0010)`; of an item, none. creator: of a private element.
    more: what is not shown of the value, in words. bulk: offset and length of a value that is kept by reference.
    """

    depth: int
    tag: str
    name: str
    keyword: str = ""
    vr: str = ""
    value: str = ""
    creator: str = ""
    more: str = ""
    bulk: tuple[int, int] | None = None

    def matches(self, words: Sequence[str]) -> bool:
        """Whether all words stand in it, whatever case. words: in lower case."""
        bare = self.tag.translate(_BARE)
        text = f"{self.tag} {bare} {self.name} {self.keyword} {self.creator} {self.value}".lower()
        return all(word in text for word in words)


_BARE = str.maketrans("", "", "(),")


def elements(header: str) -> Iterator[Element]:
    """The lines of a header in the DICOM JSON Model, in the order of tags, made as they are asked for."""
    return _of_dataset(orjson.loads(header), 0, _Names())


def count(header: str) -> int:
    """The elements of a header, nested ones as well: in text a quotation mark has a backslash in front."""
    return header.count('"vr":')


def matching(found: Iterable[Element], text: str) -> list[Element]:
    """The lines in which all words of a text stand, and those that they are nested in."""
    words = text.lower().split()
    kept: list[Element] = []
    above: list[Element | None] = []  # those that the line is nested in; None where one is kept already
    for one in found:
        del above[one.depth :]
        above.append(one)
        if one.matches(words):
            kept += [line for line in above if line is not None]
            above = [None] * len(above)
    return kept


class _Names:
    """Names and keywords, each looked up once for a header: functional groups say the same for every frame."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def of(self, key: str, creator: str) -> tuple[str, str]:
        if (key, creator) not in self._known:
            self._known[key, creator] = _name(key, creator)
        return self._known[key, creator]


def _of_dataset(dataset: Mapping[str, Any], depth: int, names: _Names) -> Iterator[Element]:
    creators = _creators(dataset)
    for key in sorted(dataset):
        creator = creators.get(key[:6], "") if creators and _is_private(key) else ""
        yield from _of_element(key, dataset[key], creator, depth, names)


def _of_element(key: str, element: Mapping[str, Any], creator: str, depth: int, names: _Names) -> Iterator[Element]:
    tag, vr = f"({key[:4]},{key[4:]})".lower(), str(element.get("vr", ""))
    name, keyword = names.of(key, creator)
    if vr == "SQ":
        items = element.get("Value") or []
        words = f"{len(items):,} {'item' if len(items) == 1 else 'items'}"
        yield Element(depth, tag, name, keyword, vr, words, creator)
        if depth < _DEEPEST - 2:
            for number, item in enumerate(items, 1):
                yield Element(depth + 1, "", f"Item {number}")
                yield from _of_dataset(item or {}, depth + 2, names)
        return
    value, more, bulk = _value(vr, element)
    yield Element(depth, tag, name, keyword, vr, value, creator, more, bulk)


def _creators(dataset: Mapping[str, Any]) -> dict[str, str]:
    """By group and block of private elements, their creator."""
    found = {}
    for key, element in dataset.items():
        if _is_private(key) and key[4:6] == "00" and key[6:] >= "10" and element.get("Value"):
            found[key[:4] + key[6:]] = str(element["Value"][0])
    return found


def _is_private(key: str) -> bool:
    return key[3] in "13579BDF"


def _name(key: str, creator: str) -> tuple[str, str]:
    """Name and keyword of an element."""
    number = int(key, 16)
    if _is_private(key):
        if key[4:6] == "00" and key[6:] >= "10":
            return "Private creator", ""
        try:
            return private_dictionary_description(number, creator), ""
        except KeyError:
            return "Private element", ""
    try:
        return dictionary_description(number), keyword_for_tag(number)
    except KeyError:
        return ("Group length", "") if key[4:] == "0000" else ("Unknown element", "")


def _value(vr: str, element: Mapping[str, Any]) -> tuple[str, str, tuple[int, int] | None]:
    """A value as text, what is left out in words, and where it lies when it is kept by reference."""
    if "InlineBinary" in element:
        return (*_bytes(str(element["InlineBinary"])), None)
    if "BulkDataURI" in element:
        return _referred(str(element["BulkDataURI"]))
    values = element.get("Value") or []
    text, length = "", 0
    for at, one in enumerate(values):
        written = _text(vr, one)
        length += len(written) + (at > 0)
        if len(text) <= LONGEST:
            text += ("\\" if at else "") + written
    if len(text) <= LONGEST:
        return text, "", None
    several = f"{len(values):,} values, " if len(values) > 1 else ""
    return text[:LONGEST], f"… {several}{length:,} characters", None


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "=".join(str(value.get(part, "")) for part in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    text = str(value)
    if vr == "UI" and text and text != (name := uid_name(text)):
        return f"{text} {name}"
    return text


def uid_name(uid: str | None) -> str:
    """The name that PS3.6 gives a UID of a class or a syntax, the UID itself where it gives none.

    It is not validated: of one that is wrong pydicom would warn on stderr, and name it there.
    """
    return UID(uid, validation_mode=IGNORE).name if uid else ""


def _bytes(text: str) -> tuple[str, str]:
    try:
        raw = b64decode(text, validate=True)
    except (NoBase64, ValueError):
        return "", "bytes that cannot be read"
    more = f"… {len(raw):,} bytes" if len(raw) > _BYTES else ""
    return raw[:_BYTES].hex(" "), more


def _referred(uri: str) -> tuple[str, str, tuple[int, int] | None]:
    try:
        reference = parse(uri)
    except NoReference:
        return "", "kept by the service that has told of it", None
    kind = " in fragments" if reference.encapsulated else ""
    return "", f"{reference.length:,} bytes{kind}", (reference.offset, reference.length)
