"""Keys of assets: the name of a table, below the prefix that is configured.

Belongs here: from a name to its key and back. Does not belong here: what stands in the graph.
"""

from collections.abc import Iterable

import dagster as dg

from dicom_assets.settings import Settings


def asset_key(settings: Settings, name: str) -> dg.AssetKey:
    """The key of an asset."""
    return dg.AssetKey([*settings.dagster.prefix, name])


def asset_keys(settings: Settings, names: Iterable[str]) -> list[dg.AssetKey]:
    """The keys of several."""
    return [asset_key(settings, name) for name in names]


def name_of(key: dg.AssetKey) -> str:
    """The name of the table that an asset is, whatever stands before it."""
    return key.path[-1]
