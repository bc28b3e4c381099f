"""Python's cyclic garbage collector, held back while JSON becomes objects.

A page of metadata is a million small objects without a cycle among them. While they are made the collector runs again
and again over everything that the process has ever imported: parsing takes seven times as long. Belongs here: that one
pause.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """No collection until the block ends; then as it was. What is not cyclic is freed all the same."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
