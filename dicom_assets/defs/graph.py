"""The one place where the graph is put together, by convention: each module in this folder gives its own part.

Belongs here: gathering. A module that has a function `definitions(settings)` takes part with what that returns, so
that adding a sensor, a job or an asset is adding a file.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, cast

import dagster as dg

from dicom_assets import defs
from dicom_assets.batch.context import RunContext
from dicom_assets.defs.asset_keys import name_of
from dicom_assets.defs.resources import work_resource
from dicom_assets.reading.engine import ReadingEngine
from dicom_assets.settings import Settings, load

Part = Callable[[Settings], dg.Definitions]

READ = (
    *("flat_metadata", "instance", "series", "study", "clinical"),
    *("imaging_study", "diagnostic_report", "image_occurrence"),
)
"""Tables that people read: of these it can be expected that they are fresh."""


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
    """A fresh graph. It names no executor, so that `Definitions.merge` takes it beside others: its jobs bring theirs.

    settings: those of file and environment by default. resource_overrides: resources by key, for tests. engine: reads
    the objects of every run. work: open already, for runs in this process that share it. Raises SettingsError.
    """
    settings = settings or load()
    shared = dg.Definitions(
        resources={"work": work_resource(settings, engine, work), **(resource_overrides or {})},
    )
    return dg.Definitions.merge(shared, *(_as_configured(settings, part(settings)) for part in parts()))


def _as_configured(settings: Settings, part: dg.Definitions) -> dg.Definitions:
    """A part with what is configured for all assets."""
    wanted = settings.dagster
    every: dict[str, Any] = {"owners": [*wanted.owners]}

    def told(spec: dg.AssetSpec) -> dg.AssetSpec:
        more = dict(every)
        if wanted.fresh_within_hours is not None and name_of(spec.key) in READ:
            window = timedelta(hours=wanted.fresh_within_hours)
            more["freshness_policy"] = dg.FreshnessPolicy.time_window(fail_window=window)
        own = {name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")}
        return spec.replace_attributes(tags={**wanted.tags, **own}, **more)

    assets = cast("Iterable[dg.AssetsDefinition]", part.assets or ())  # or specs, which the function takes as well
    return dg.Definitions(
        assets=[*dg.map_asset_specs(told, assets)],
        asset_checks=part.asset_checks,
        jobs=part.jobs,
        schedules=part.schedules,
        sensors=part.sensors,
    )


# Dagster 1.13 warns about its own copying of sensors; a user of the command can do nothing about it.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer", category=dg.BetaWarning)
