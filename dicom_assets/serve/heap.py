"""The heap of a serving process: what one answer gives back stays for the next one.

Belongs here: how the C library takes memory from the system. Does not belong here: how much an answer holds.

Answers are made in pieces of a quarter of a megabyte to several, each in the thread whose turn it is. As glibc is set,
it returns nearly all of that to the system at once, and each next piece is memory that the system makes anew, page by
page; and it has a heap for each thread, up to eight for each processor.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3)."""

_KEPT_BYTES = 16 << 20
"""What a heap keeps at its end."""

_LARGEST_BYTES = 8 << 20
"""Larger blocks come from the system and go back to it."""

_HEAPS = 2
"""For all threads, of which the interpreter lets one at a time ask for memory anyhow."""


def keep_for_next_answers() -> None:
    """Sets the heap of this process, once, before it answers; where the C library is none of glibc nothing is done."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no library that can be asked for by no name
        return
    for parameter, value in (
        (_TRIM_THRESHOLD, _KEPT_BYTES),
        (_MMAP_THRESHOLD, _LARGEST_BYTES),
        (_ARENA_MAX, _HEAPS),
    ):
        mallopt(parameter, value)
