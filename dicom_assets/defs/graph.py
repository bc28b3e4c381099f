"""The one place where the graph is put together, by convention: each module in this folder gives its own part.

Belongs here: gathering. A module that has a function `definitions(settings)` takes part with what that returns, so
that adding a sensor, a job or an asset is adding a file.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import dagster as dg

from dicom_assets import defs
from dicom_assets.batch.context import RunContext
from dicom_assets.defs.resources import work_resource
from dicom_assets.reading.engine import ReadingEngine
from dicom_assets.settings import Settings, load

Part = Callable[[Settings], dg.Definitions]


def parts() -> Iterator[Part]:
    """The function `definitions` of each module of this folder that has one, in the order of their names."""
    for found in walk_packages(defs.__path__, f"{defs.__name__}."):
        if found.name == __name__:
            continue
        part = getattr(import_module(found.name), "definitions", None)
        if part is not None:
            yield part


def build_defs(
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    engine: ReadingEngine | None = None,
    work: RunContext | None = None,
) -> dg.Definitions:
    """A fresh graph.

    settings: those of file and environment by default. resource_overrides: resources by key, for tests. engine: reads
    the objects of every run. work: open already, for runs in this process that share it. Raises SettingsError.
    """
    settings = settings or load()
    shared = dg.Definitions(
        resources={"work": work_resource(settings, engine, work), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(shared, *(part(settings) for part in parts()))


# Dagster 1.13 warns about its own copying of sensors; a user of the command can do nothing about it.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer", category=dg.BetaWarning)
