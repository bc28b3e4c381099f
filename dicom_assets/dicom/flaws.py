"""What can be wrong with one value, as bits that are cheap to collect, and the reason codes they end as.

Belongs here: the bits only. The rules that find a flaw stand where bytes are read (`charset`, `values`, `columns`).
"""

from __future__ import annotations

SOUND = 0
VALUE_INVALID = 1
"""The value does not fit its VR (PS3.5 6.2)."""
CHARSET_GUESSED = 2
"""Text beyond ASCII without a declared character set, read as Latin-1: complete, perhaps not what was meant."""
CHARSET_LOST = 4
"""Text that the declared character set does not allow; the refused bytes stand as `\\xHH`."""
DEPTH_CAPPED = 8
"""A sequence below the bound on nesting is referred to by its place, and not read."""
HEADER_CAPPED = 16
"""A value above the bound on size is referred to by its place, with its count and digest."""
UID_INVALID = 32
"""A UID breaks PS3.5 9.1."""
CHARSET_PARTLY = 64
"""A person name some of whose representations are CHARSET_LOST, but no alphabetic one."""
STRUCTURE_INVALID = 128
"""Lengths, delimiters or the order of elements break PS3.5 7; what stands there was read."""
HEADER_INCOMPLETE = 256
"""Some bytes in the data set, or all from some byte on, are no data elements."""
PLACED = 512
"""No flaw: what was made of the bytes says where they lie, so it holds at this place alone."""

_CODES = (
    (VALUE_INVALID, "VALUE_INVALID"),
    (CHARSET_GUESSED | CHARSET_LOST | CHARSET_PARTLY, "CHARSET_UNDECODABLE"),
    (DEPTH_CAPPED, "DEPTH_CAPPED"),
    (HEADER_CAPPED, "HEADER_CAPPED"),
    (UID_INVALID, "UID_INVALID"),
    (STRUCTURE_INVALID, "STRUCTURE_INVALID"),
    (HEADER_INCOMPLETE, "HEADER_INCOMPLETE"),
)


def codes(flaws: int) -> tuple[str, ...]:
    """Reason codes of these bits."""
    if not flaws:
        return ()
    return tuple(code for bits, code in _CODES if flaws & bits)
