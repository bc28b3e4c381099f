"""The elements of stored headers, each different one of many headers taken apart once.

Belongs here: cutting headers (DICOM JSON Model, PS3.18 F) into elements, and naming these. Does not belong here: what
is counted of them (`tag_counts`, `series_headers`).

Headers of a series share most of what they say, so they are not parsed: the text of each is cut where one element ends
and the next begins, and a text is read as JSON when it is met first. Both marks by which it is cut, `},"` between the
elements of one data set and `":{"vr":"` in front of what an element says, end a string of JSON or begin one, and stand
in none. A header that the reader did not write may have spaces and another order in it: when one of some headers
cannot be cut, all of these are parsed and written anew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from json import JSONDecoder
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import orjson

T = TypeVar("T")

DEPTH = 3
"""Sequences that a path names, from the outermost; an element that lies deeper stands at `*` below the last of them."""
_DEEPER = "*."

_BETWEEN = '},"'
_SEQUENCE = '"vr":"SQ","Value":[{'
_ITEMS_END = "}]}"
_TAG_AND_BRACE = len('"00000000":{')
_SAYS = '":{"vr":"'
_SAID = len("00000000" + _SAYS) + 4
"""Where, in the text of an element, stands what it says: behind tag, VR, quotation mark and comma."""
_ODD = frozenset("13579BDF")
_LAST_OF_GROUP = itemgetter(slice(3, 4))
_BULK = "length="
_VALUE = '"Value":'
_ARRAY = f"{_VALUE}["
_NOTHING = frozenset(("", f"{_VALUE}[]", f'{_VALUE}[""]', f"{_VALUE}[null]"))
_OF_NUMBERS = frozenset("-0123456789")


class Element:
    """One element as some headers have it, at one place.

    path: tags of its sequences and its own; a private one with its creator in place of the block that was reserved for
    it, `0029xx10 SIEMENS CSA HEADER` (PS3.5 7.8.1), and (2) behind it for the second block of one creator. creator: of
    a private element, empty where nobody reserved its block, which its path then names; None of a standard one. said:
    what stands behind its VR, in JSON. bulk: bytes of a value that is left out of the header or stands there in base64,
    -1 where a reference does not say how many. items: of a sequence, otherwise None. is_empty: whether its value has no
    length. mark: of its value, once somebody has made it.
    """

    __slots__ = ("_length", "bulk", "creator", "is_empty", "items", "mark", "path", "said", "tag", "vr")

    def __init__(
        self, path: str, tag: str, creator: str | None, vr: str, said: str, bulk: int | None, items: int | None
    ) -> None:
        """See above."""
        self.path, self.tag, self.creator, self.vr, self.said, self.bulk, self.items = (
            path,
            tag,
            creator,
            vr,
            said,
            bulk,
            items,
        )
        self.is_empty = not (bulk or items) and (bulk == 0 or said in _NOTHING)
        self._length: int | None = None
        self.mark: int | None = None

    @property
    def values(self) -> Sequence[Any]:
        """What stands in its `Value`."""
        return _read(self.said).get("Value") or ()

    @property
    def length(self) -> int:
        """Characters of its value with the backslashes between several; bytes of bulk data; items of a sequence."""
        if self._length is None:
            self._length = self._measure()
        return self._length

    def _measure(self) -> int:
        said = self.said
        if self.bulk is not None:
            return max(self.bulk, 0)
        if self.items is not None:
            return self.items
        first = said[len(_ARRAY) : len(_ARRAY) + 1]
        if first in _OF_NUMBERS:
            return len(said) - len(_ARRAY) - 1
        if first == '"' and "\\" not in said and said.count('"') == 4:
            return len(said) - len(_ARRAY) - 3
        return sum(map(_length, self.values)) + len(self.values) - 1


def _length(value: Any) -> int:
    if isinstance(value, dict):  # the representations of a person name (PS3.18 F.2.2)
        return len("=".join(map(str, value.values())))
    return 0 if value is None else len(str(value))


class Found(NamedTuple):
    """An element of some headers of one unit. occurrences: of several items too; headers: in which its path is new."""

    unit: Any
    element: Element
    occurrences: int
    headers: int


class KnownElements:
    """Elements that were met in headers before, for whoever takes apart many headers, some at a time."""

    def __init__(self) -> None:
        """Knows none."""
        self._known: dict[tuple[str, ...], dict[str, Element]] = {}
        self._count = 0

    def below(self, own: tuple[str, ...]) -> dict[str, Element]:
        """Those without items of headers with these creators, by their text."""
        return self._known.setdefault(own, {})

    def add(self, known: dict[str, Element], text: str, element: Element) -> None:
        """Keeps one that is not long, and forgets all others when there are too many."""
        if len(text) > _LONG:
            return
        if self._count >= _KNOWN:
            self._known.clear()
            known.clear()
            self._count = 0
        known[text] = element
        self._count += 1


_KNOWN, _LONG = 100_000, 200
"""Elements that are kept, and characters of one that is."""


def take_apart(units: Sequence[Any], headers: Sequence[str], known: KnownElements | None = None) -> list[Found]:
    """Each different element of some headers by the unit that each of them belongs to.

    Different elements of one path follow each other in any order, each with the headers that have it first; those of
    one unit stand together where these headers have the same private creators. known: of earlier headers, otherwise
    none are. Raises ValueError when a header is no JSON object of elements.
    """
    memory = known or KnownElements()
    return _either(lambda way: [found for held in _gather(units, headers, way) for found in _found(*held, memory)])


def cut(header: str) -> tuple[list[str], list[str]]:
    """Texts of the elements of a header without items, `tag":{…`, and of its sequences, `"tag":{…}`.

    Raises ValueError when it is no JSON object of elements.
    """
    return _either(lambda way: way(header))


def _either(made: Callable[[_Cut], T]) -> T:
    """What is made of headers as the reader writes them; of any others, parsed. Raises ValueError for anything else."""
    for way in (_cut, _cut_parsed):
        try:
            return made(way)
        except _NotSo:
            continue
    raise ValueError("a header is no JSON object of DICOM elements")


class _NotSo(Exception):
    """A text is not cut where elements end."""


_Cut = Callable[[str], tuple[list[str], list[str]]]
_Held = tuple[Any, tuple[str, ...], Counter[str], Counter[str]]


def _gather(units: Sequence[Any], headers: Sequence[str], cut: _Cut) -> Iterator[_Held]:
    """By unit and private creators of the headers, how often each text of an element without items, of a sequence."""
    held: dict[tuple[Any, tuple[str, ...]], tuple[Counter[str], Counter[str]]] = {}
    for unit, header in zip(units, headers, strict=True):
        flat, sequences = cut(header)
        private = compress(flat, map(_ODD.__contains__, map(_LAST_OF_GROUP, flat)))
        own = tuple([one for one in private if one[4:6] == "00" and one[6:8] >= "10"])
        counted = held.get((unit, own))
        if counted is None:
            counted = held[unit, own] = Counter(), Counter()
        counted[0].update(flat)
        counted[1].update(sequences)
    for (unit, own), (texts, nested) in held.items():
        yield unit, own, texts, nested


def _cut(header: str) -> tuple[list[str], list[str]]:
    """Texts of the elements of a header without items, `tag":{…`, and of its sequences, `"tag":{…}`. Raises _NotSo."""
    if header == "{}":
        return [], []
    if not header.startswith('{"') or not header.endswith("}}"):
        raise _NotSo
    flat: list[str] = []
    sequences: list[str] = []
    at, last = 1, len(header) - 1
    while at < last:
        found = header.find(_SEQUENCE, at)
        start = last if found < 0 else found - _TAG_AND_BRACE
        if start > at:
            part = header[at + 1 : start].removesuffix(",")
            if header[at] != '"' or part[-1:] != "}" or part[8 : _SAID - 4] != _SAYS:
                raise _NotSo
            flat += part[:-1].split(_BETWEEN)
        if found < 0:
            break
        end = _end_of(header, found)
        if start < at:
            raise _NotSo
        sequences.append(header[start:end])
        at = end + 1
    return flat, sequences


def _end_of(header: str, opens: int) -> int:
    """The place behind the element of a sequence. opens: where it says that it is one."""
    depth, at, closes = 0, opens, -1
    while True:
        while closes < at or header[closes - 1] not in "{}":  # what ends with a string is the value of a person name
            closes = header.find(_ITEMS_END, max(at, closes + 1))
            if closes < 0:
                raise _NotSo
        if 0 <= opens < closes:
            depth, at = depth + 1, opens + len(_SEQUENCE)
            opens = header.find(_SEQUENCE, at)
        else:
            depth, at = depth - 1, closes + len(_ITEMS_END)
            if not depth:
                return at


def _cut_parsed(header: str) -> tuple[list[str], list[str]]:
    """The same of any header. Raises _NotSo."""
    flat: list[str] = []
    sequences: list[str] = []
    try:
        for tag, element in _ordered(orjson.loads(header)).items():
            text = orjson.dumps({tag: element}).decode()
            if element["vr"] == "SQ" and element.get("Value"):
                sequences.append(text[1:-1])
            else:
                flat.append(text[2:-2])
    except (ValueError, AttributeError, TypeError):
        raise _NotSo from None
    return flat, sequences


def _ordered(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A data set with tags in order and each element's VR first, as the reader writes it."""
    made: dict[str, dict[str, Any]] = {}
    for tag, element in sorted(data.items()):
        vr, values = str(element.get("vr", "UN")), element.get("Value")
        if vr == "SQ" and values:
            values = [_ordered(item or {}) for item in values]
        kept = {"Value": values, "InlineBinary": element.get("InlineBinary"), "BulkDataURI": element.get("BulkDataURI")}
        made[tag.upper()] = {"vr": vr, **{key: value for key, value in kept.items() if value is not None}}
    return made


_Creators = Mapping[str, tuple[str, str]]
"""By group and block, who reserved it, and how a path names that: blocks of one creator are told apart."""


def _creators(own: Sequence[str]) -> _Creators:
    """Who reserved the blocks of a data set. own: texts of the elements that say so."""
    found: _Creators = {}
    for text in own:
        found = _with_creator(found, text[:8], text[_SAID:])
    return found


def _with_creator(known: _Creators, tag: str, said: str) -> _Creators:
    """What is known of blocks, with one more."""
    name = _name(said)
    before = sum(key[:4] == tag[:4] and one == name for key, (one, _) in known.items())
    return {**known, tag[:4] + tag[6:8]: (name, f"{name} ({before + 1})" if before else name)}


def _name(said: str) -> str:
    values = _read(said).get("Value") or [""]
    return str(values[0])


def _read(said: str) -> Mapping[str, Any]:
    """What stands behind the VR of an element, as JSON says it. Raises _NotSo."""
    try:
        found: Mapping[str, Any] = orjson.loads(f"{{{said}}}")
    except ValueError:
        raise _NotSo from None
    return found


def _found(
    unit: Any, own: tuple[str, ...], flat: Counter[str], nested: Counter[str], memory: KnownElements
) -> Iterator[Found]:
    """The different elements of headers that are counted together. own: texts of their private creators."""
    creators, known = _creators(own), memory.below(own)
    for text, count in flat.items():
        element = known.get(text)
        if element is None:
            if text[8 : _SAID - 4] != _SAYS or text[_SAID - 2 : _SAID - 1] != '"':
                raise _NotSo
            name, creator = _named(text[:8], creators)
            element = _element(name, text[:8], creator, text[_SAID - 4 : _SAID - 2], text[_SAID:])
            memory.add(known, text, element)
        yield Found(unit, element, count, count)
    places = _Places(creators)
    for text, count in nested.items():
        places.walk(text, count)
    yield from places.found(unit)


def _named(tag: str, creators: _Creators) -> tuple[str, str | None]:
    """How a path names an element of a data set, and the creator if it is a private one."""
    if tag[3] not in _ODD or tag[4:7] == "000":
        return tag, None
    block, rest = (tag[6:8], "00xx") if tag[4:6] == "00" else (tag[4:6], f"xx{tag[6:]}")
    creator, told = creators.get(tag[:4] + block, ("", ""))
    return f"{tag[:4]}{rest} {told}" if told else tag, creator


def _element(path: str, tag: str, creator: str | None, vr: str, said: str | int) -> Element:
    if isinstance(said, int):
        return Element(path, tag, creator, vr, "", None, said)
    if not said or said.startswith(_ARRAY):
        return Element(path, tag, creator, vr, said, None, 0 if vr == "SQ" else None)
    return Element(path, tag, creator, vr, said, _bulk(_read(said)), None)


def _bulk(told: Mapping[str, Any]) -> int | None:
    inline, reference = told.get("InlineBinary"), told.get("BulkDataURI")
    if inline is not None:
        return len(str(inline)) * 3 // 4 - str(inline)[-2:].count("=")
    if reference is None:
        return None
    length = str(reference).rpartition(_BULK)[2]
    return int(length) if length.isdecimal() else -1


_Step = tuple[str, str, str, str]
"""Of a text from one VR to the next tag: VR; what is said, or _OPENS; `]` for each sequence that ends and `{` for each
further item that begins, in their order; the next tag."""
_OPENS = "["
_DECODER = JSONDecoder()
_STRINGS = re.compile(r'"[^"]*"(?:,"[^"]*")*\]')
"""Strings up to the end of their array, where nothing is escaped."""


class _Place:
    """A place below sequences: how often each text stands there, and the places below it."""

    __slots__ = ("below", "creator", "depth", "met", "path", "prefix", "present", "sequences", "tag", "texts")

    def __init__(self, path: str, tag: str, creator: str | None, depth: int, prefix: str) -> None:
        self.path, self.tag, self.creator, self.depth, self.prefix = path, tag, creator, depth, prefix
        self.below: dict[str, _Place] = {}
        self.texts: dict[str, int] = {}
        self.sequences: dict[int, int] = {}
        self.present = self.met = 0


class _Places:
    """Elements of sequences, counted by place and by what they say."""

    def __init__(self, creators: _Creators) -> None:
        self._creators = creators
        self._top: dict[str, _Place] = {}
        self._all: list[_Place] = []
        self._below: dict[str, _Place] = {}
        self._steps: dict[str, _Step] = {}
        self._walked = 0

    def found(self, unit: Any) -> Iterator[Found]:
        """All that was counted."""
        for place in self._all:
            said: Counter[tuple[str, str | int]] = Counter()
            for items, count in place.sequences.items():
                said["SQ", items] += count
            for piece, count in place.texts.items():
                vr, value, _, _ = self._steps[piece]
                said[vr, value] += count
            present = place.present
            for (vr, one), count in said.items():
                yield Found(unit, _element(place.path, place.tag, place.creator, vr, one), count, present)
                present = 0

    def _place(self, below: dict[str, _Place], above: _Place | None, tag: str, creators: _Creators) -> _Place:
        """The place of an element, below a sequence or none."""
        name, creator = _named(tag, creators)
        place = below.get(name)
        if place is None:
            depth, prefix = (0, "") if above is None else (above.depth + 1, above.prefix)
            path = prefix + name
            if depth < DEPTH:
                prefix = f"{path}."
            elif depth == DEPTH:
                prefix = f"{prefix}{_DEEPER}"
            place = self._below.get(path) if depth > DEPTH else None  # several ways lead there
            if place is None:
                place = _Place(path, tag, creator, depth, prefix)
                self._all.append(place)
                if depth > DEPTH:
                    self._below[path] = place
            below[name] = place
        return place

    def walk(self, text: str, count: int) -> None:
        """Counts a sequence, `"tag":{…}`, and all that its items hold. Raises _NotSo."""
        first, *pieces = text.split(_SAYS)
        tag, here, items, creators = first[-8:], self._top, 0, self._creators
        above: _Place | None = None
        levels: list[tuple[dict[str, _Place], _Place | None, int, _Creators]] = []
        steps, self._walked = self._steps, self._walked + 1
        walked = self._walked
        for piece in pieces:
            step = steps.get(piece)
            if step is None:
                step = steps[piece] = _step(piece)
            said, moves = step[1], step[2]
            place = here.get(tag)
            if place is None or tag[3] in _ODD:
                if not tag:
                    raise _NotSo
                if tag[3] in _ODD and tag[4:6] == "00" and tag[6:8] >= "10" and levels:
                    creators = _with_creator(creators, tag, said)
                place = self._place(here, above, tag, creators)
            if place.met != walked:
                place.met = walked
                place.present += count
            if said == _OPENS:
                levels.append((here, above, items, creators))
                here, above, items, creators = place.below, place, 1, {}
            else:
                texts = place.texts
                texts[piece] = texts.get(piece, 0) + count
            for move in moves:
                if move == "{":
                    items, creators = items + 1, {}
                elif above is not None:
                    above.sequences[items] = above.sequences.get(items, 0) + count
                    here, above, items, creators = levels.pop()
                else:
                    raise _NotSo
            tag = step[3]
        if levels or tag:
            raise _NotSo


def _step(piece: str) -> _Step:
    """Reads a text from one VR to the next tag. Raises _NotSo."""
    vr, at = piece[:2], 3
    said, begins = "", f",{_VALUE}[{{"
    if vr == "SQ" and piece.startswith(begins, at):
        said, at = _OPENS, at + len(begins)
    else:
        if piece[at : at + 1] == ",":
            end = _end_of_value(piece, at + 1)
            said, at = piece[at + 1 : end], end
        if piece[at : at + 1] != "}":
            raise _NotSo
        at += 1
    between, following = piece[at:], ""
    if between[-9:-8] == '"':
        between, following = between[:-9], between[-8:]
    if piece[2:3] != '"' or between.strip("{}[],"):
        raise _NotSo
    return vr, said, "".join(one for one in between if one in "]{"), following


def _end_of_value(piece: str, at: int) -> int:
    """Where the value ends that begins with its name, such as `"Value":[…]`."""
    if piece.startswith(f"{_VALUE}[", at) and not ("\\" in piece or "null" in piece or "{" in piece[at : at + 10]):
        at += len(_VALUE) + 1
        if piece[at : at + 1] != '"':
            return piece.find("]", at) + 1 or len(piece)
        strings = _STRINGS.match(piece, at)
        if strings is None:
            raise _NotSo
        return strings.end()
    try:
        _, end = _DECODER.raw_decode(piece, piece.index(":", at) + 1)
    except ValueError:
        raise _NotSo from None
    return end
