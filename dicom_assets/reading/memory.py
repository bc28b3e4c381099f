"""What a process that runs batches does with memory that it does not need any more: it gives it back.

Belongs here: settings of allocators. Does not belong here: bounds on what is read at a time (each step has its own).

Arrow's own allocator, and glibc once a large block was freed, keep what was freed for the next time. A batch goes
through some dozens of steps that each need much for a moment, in threads of Arrow, DuckDB and delta-rs with a store
each, so what they keep adds up: 130 MB for a Bundle of 86 MB.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_assets.lake.delta import Lake

_M_MMAP_THRESHOLD = -3
_LARGE = 4 << 20
"""Bytes from which a block is a mapping of its own, which goes back to the system when it is freed.

Smaller ones, such as a page of a Parquet file, come and go by the thousand, and each mapping costs a page fault for
4 KB: at 256 KB that was a tenth of the processor time of an ingest, for 30 MB less at its peak.
"""


@cache
def _system() -> ctypes.CDLL:
    """The system's library, told once to make a mapping of each large block, which is gone when the block is freed.

    Arrow uses the system's allocator because the package asks for it before Arrow is imported (`dicom_assets`).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc has it; other systems give back by themselves
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
    return library


def give_back(lake: Lake | None = None) -> None:
    """Gives the system back what was freed, and makes large blocks go back as soon as they are: a few milliseconds.

    lake: what queries of it have freed as well.
    """
    _system()
    trim()
    if lake is not None:
        lake.give_back()


def trim() -> None:
    """Gives the system back what was freed. Whoever needs as much again soon pays for it: a page fault for 4 KB."""
    give = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give is not None:
        give(0)
