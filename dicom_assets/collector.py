"""Python's cyclic garbage collector, held back where very many objects are made that stay or have no cycles.

A page of metadata is a million small objects without a cycle among them. While they are made the collector runs again
and again over everything that the process has ever imported: parsing takes seven times as long. Modules of Dagster are
as many, and stay.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_EVERY = 50_000
"""Containers made between two looks for cycles among the young: seldom enough not to be felt."""


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


def keep_what_is_there() -> None:
    """Takes all objects that there are out of every later look for cycles, and looks seldom."""
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 100)
