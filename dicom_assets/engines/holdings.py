"""What a lake holds that an engine can be shown: tables with their columns as their logs have them, typed datasets.

Belongs here: asking the lake, once, and where its tables lie in the words of each platform. Does not belong here: what
an engine is told (a module for each).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa

from dicom_assets.lake import dataset_types
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import UserError
from dicom_assets.storage.azure import Place


@dataclass(frozen=True)
class Holdings:
    """What a lake holds.

    uri: where it lies, an absolute folder or a URL. tables: by name the columns that each table's log has, promoted
    ones too, each with its comment. datasets: by name the pinned types of the columns of a clinical dataset.
    """

    uri: str
    place: Place | None
    tables: Mapping[str, pa.Schema]
    datasets: Mapping[str, Mapping[str, str]]

    def has(self, *names: str) -> bool:
        """Whether all these tables are there."""
        return set(names) <= set(self.tables)

    def on_azure(self, engine: str) -> Place:
        """Where it lies, for an engine that reads nothing but Azure Storage. Raises UserError for a folder."""
        if self.place is None:
            raise UserError(
                f"{engine} reads from Azure Storage, and this lake is a folder. Give the URL of a lake that lies "
                "there: --lake az://ACCOUNT/CONTAINER/PATH."
            )
        return self.place

    def abfss(self, engine: str, name: str = "") -> str:
        """Address of a table, or of the lake, as Hadoop's driver and what is made of it name it."""
        place = self.on_azure(engine)
        below = "/".join(part for part in (place.path, name) if part)
        return f"abfss://{place.container}@{place.account}.dfs.core.windows.net/{below}"

    def https(self, engine: str) -> str:
        """Address of the lake at the endpoint for Data Lake Storage."""
        place = self.on_azure(engine)
        below = f"/{quote(place.path)}" if place.path else ""
        return f"https://{place.account}.dfs.core.windows.net/{place.container}{below}"

    def location(self, engine: str, name: str) -> str:
        """Address of a table for an engine that reads folders as well."""
        return f"{self.uri}/{name}" if self.place is None else self.abfss(engine, name)


def holdings(lake: Lake) -> Holdings:
    """What a lake holds now. Raises LakeError."""
    tables = {}
    for name in TABLES:
        try:
            tables[name] = lake.schema(name)
        except NoSuchVersion:
            continue
    return Holdings(lake.uri, lake.files.place, tables, dataset_types.pinned(lake.files))
