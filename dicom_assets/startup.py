"""How a process of ours begins and ends quickly: what is a matter of tenths of a second at each start.

Belongs here: the interpreter's own costs. It imports nothing but the standard library. Does not belong here: anything
that knows what the process does.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_COLLECT_EVERY = 50_000
"""Containers made between two looks for cycles among the young: seldom enough not to be felt."""


@contextmanager
def without_collecting() -> Iterator[None]:
    """Looks for no cycles while modules are imported: what they make stays, and each look walks over all of it."""
    gc.disable()
    try:
        yield
    finally:
        keep_what_is_there()


def keep_what_is_there() -> None:
    """Takes all objects that there are out of every later look for cycles, and looks seldom."""
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 100)
    gc.enable()


PIXELS_AND_DOWNLOADS = ("PIL", "requests")
"""What pydicom looks for when it is imported, and headers never need: about 0.1 s and 10 MB.

It looks for numpy as well; but pyarrow that was imported without numpy crashes as soon as pandas comes.
"""


COLOURS_OF_CODE = ("pygments",)
"""What Mako, by which Alembic writes migrations, looks for when it is imported: to colour templates in HTML."""


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Lets no packages of these names be found, for modules that only look at import whether they are there.

    Packages that are imported already stay. Whoever needs one can import it afterwards.
    """
    finder = _Without(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@dataclass(frozen=True)
class _Without(MetaPathFinder):
    """Finds no packages of some names."""

    names: frozenset[str]

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Leaves everything else to the other finders."""
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class _Later(ModuleType):
    """A package that is not run before somebody asks for something of its own; modules in it can be imported."""

    def __getattr__(self, name: str) -> Any:
        """What is not there yet is what running the package gives."""
        spec = self.__spec__
        if (name.startswith("__") and name.endswith("__")) or spec is None or spec.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on it is an ordinary package
        spec.loader.exec_module(self)
        return getattr(self, name)


def later(name: str) -> None:
    """Runs a package only when something of it is asked for, instead of with the first module in it.

    name: of its own, or below a package that is imported already. Nothing happens when it is there, or nowhere.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        return
    package = sys.modules[name] = module_from_spec(spec)
    package.__class__ = _Later
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, package)


def arrow_without_pandas() -> None:
    """Keeps pyarrow from importing pandas, which it does at the first array that it makes of a list: about 0.3 s.

    For processes that convert nothing between the two; who wants pandas itself can import it afterwards.
    """
    if "pandas" in sys.modules:
        return
    with without("pandas"):
        import pyarrow as pa

        pa.array([])  # it looks once


ONE_THREAD_FOR_MATRICES = {"OPENBLAS_NUM_THREADS": "1"}
"""What keeps numpy from starting a thread for each core when it is imported, which turn idly for 0.06 s each."""


def without_matrices() -> None:
    """Sets that for this process, which has not imported numpy yet, unless its user has set something else."""
    for name, value in ONE_THREAD_FOR_MATRICES.items():
        os.environ.setdefault(name, value)


def leave(status: int) -> None:
    """Ends the process at once: Python takes most of a second to dismantle the modules of Dagster one by one.

    Whoever calls this has closed what must be closed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
