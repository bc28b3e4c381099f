"""The parts of a multipart body (RFC 2046 5.1, as PS3.18 8.6.1 uses it) as they come, none of them ever held.

Belongs here: boundaries and headers of parts. Does not belong here: what a part holds (`storing`).

    parts = BodyParts(boundary)
    for chunk in body:
        for event in parts.feed(chunk):
            ...
    parts.finish()

Whatever the chunks are cut like, the bytes of a part are the same. A line ends with CR LF: with LF alone, a boundary
within an image could not be told from one between images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

HEADER_MOST = 16 * 2**10
"""Bytes that the headers of a part may have."""
_PADDING_MOST = 64
"""Spaces that may stand behind a boundary."""
_BITE = 2**16

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]").fullmatch
"""RFC 2046 has at most 70 characters; some clients have more."""
_PADDING = re.compile(rb"[ \t]*").match
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*").fullmatch


class BodyMalformed(ValueError):
    """The body is not what its Content-Type says. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part begins. headers: by name in lower case; the last one of a name."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartBytes:
    """Bytes of the part that began last."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part that began last is whole."""


Event = PartBegin | PartBytes | PartEnd


class _At(Enum):
    PREAMBLE = auto()
    LINE = auto()
    HEADERS = auto()
    FIRST = auto()
    BODY = auto()
    EPILOGUE = auto()


class BodyParts:
    """Reads a multipart body, piece by piece."""

    def __init__(self, boundary: str) -> None:
        """boundary: as the Content-Type has it. Raises BodyMalformed."""
        if not _BOUNDARY(boundary):
            raise BodyMalformed("the boundary is missing, or no boundary")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._at = _At.PREAMBLE
        self._held = b"\r\n"  # so that a boundary at the very beginning is one
        self._looked = 0
        self._inside = self._is_first = False
        self._steps = {
            _At.PREAMBLE: self._to_boundary,
            _At.LINE: self._line,
            _At.HEADERS: self._headers,
            _At.FIRST: self._first,
            _At.BODY: self._to_boundary,
            _At.EPILOGUE: self._behind,
        }

    def feed(self, chunk: bytes) -> list[Event]:
        """What the next bytes of the body add. Raises BodyMalformed."""
        events: list[Event] = []
        for begin in range(0, len(chunk), _BITE):  # what is held is copied with each part: it stays short
            self._held += chunk[begin : begin + _BITE]
            while self._steps[self._at](events):
                pass
        return events

    def finish(self) -> None:
        """The body has ended. Raises BodyMalformed when it should not have."""
        if self._at is not _At.EPILOGUE:
            raise BodyMalformed("the body ends before its last boundary")

    def _go(self, at: _At, behind: int) -> bool:
        """Goes on in another state, behind so many of the bytes that are held."""
        self._at, self._held, self._looked = at, self._held[behind:], 0
        return True

    def _to_boundary(self, events: list[Event]) -> bool:
        """Bytes of a part, or of what stands before the first one, up to a boundary if there is one."""
        found = self._held.find(self._delimiter, self._looked)
        end = found if found >= 0 else max(self._looked, len(self._held) - len(self._delimiter) + 1)
        if end and self._at is _At.BODY:
            events.append(PartBytes(self._held[:end]))
        if found >= 0:
            self._inside, self._is_first = self._at is _At.BODY, False
            return self._go(_At.LINE, found)
        self._go(self._at, end)
        return False

    def _line(self, events: list[Event]) -> bool:
        """What stands behind a boundary: nothing but space, or two hyphens; otherwise it was none."""
        behind = len(self._delimiter)
        padding = _PADDING(self._held, behind)
        end, after = padding.end(), self._held[padding.end() : padding.end() + 2]  # type: ignore[union-attr]
        if self._held[behind : behind + 2] == b"--":
            self._end_part(events)
            return self._go(_At.EPILOGUE, len(self._held))
        if after == b"\r\n" and end - behind <= _PADDING_MOST:
            self._end_part(events)
            return self._go(_At.HEADERS, end)
        if (after in (b"", b"\r") and end - behind <= _PADDING_MOST) or self._held[behind:] == b"-":
            return False
        ours = 2 if self._is_first else 0  # the end of the empty line behind the headers is no byte of the part
        self._go(_At.BODY if self._inside else _At.PREAMBLE, ours)
        self._looked = behind - ours
        return True

    def _behind(self, events: list[Event]) -> bool:
        """Whatever stands behind the last boundary means nothing."""
        self._held = b""
        return False

    def _end_part(self, events: list[Event]) -> None:
        if self._inside:
            events.append(PartEnd())

    def _headers(self, events: list[Event]) -> bool:
        """The headers of a part, held with the line's end before them, so that none at all are headers too."""
        end = self._held.find(b"\r\n\r\n", 0, HEADER_MOST)
        if end < 0:
            if len(self._held) >= HEADER_MOST:
                raise BodyMalformed("the headers of a part are too long")
            return False
        events.append(PartBegin(_fields(self._held[:end])))
        return self._go(_At.FIRST, end + 2)

    def _first(self, events: list[Event]) -> bool:
        """The beginning of a part's bytes: the end of the empty line may be that of a boundary, of a part of none."""
        if self._delimiter.startswith(self._held):
            return False
        if not self._held.startswith(self._delimiter):
            return self._go(_At.BODY, 2)
        self._inside = self._is_first = True
        return self._go(_At.LINE, 0)


def _fields(block: bytes) -> Mapping[str, str]:
    """Headers by name. Raises BodyMalformed."""
    found: dict[str, str] = {}
    for line in re.sub(rb"\r\n[ \t]+", b" ", block).split(b"\r\n"):
        if not line:
            continue
        field = _FIELD(line)
        if field is None:
            raise BodyMalformed("a header of a part is none")
        found[field[1].decode("ascii").lower()] = field[2].decode("latin-1")
    return found
