"""Rows of clinical that hold FHIR resources, named again as today's reader would name them.

Belongs here: what follows from a resource as it stands in `record_values`. Does not belong here: reading files of
resources (`dicom_assets.clinical`), which rows (`migrations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.clinical.fhir_resources import columns_of, patient_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.reading.clinical_rows import server_of
from dicom_assets.schema import keys
from dicom_assets.settings import Settings

_GIVEN = ("server", "record_key", "file_key", "effective_text", "effective_end_text", "patient_identifiers")
"""Columns that are given to a resource; whose record it is stays as it was resolved."""


def rekeyed(lake: Lake, settings: Settings, rows: pa.Table) -> pa.Table:
    """Rows of clinical, of which resources without a server have the one that they are of, and the key with it.

    A resource without an id was named by its place in a Bundle, which nothing tells any more: it keeps its key.
    """
    wanted = pc.and_(pc.is_null(rows["server"]), pc.equal(rows["record_key"], rows["file_key"])).to_pylist()
    configured = _configured(lake, settings, rows) if any(wanted) else {}
    columns: dict[str, list[Any]] = {name: rows[name].to_pylist() for name in _GIVEN}
    sources, objects = rows["source"].to_pylist(), rows["object_id"].to_pylist()
    for at, (is_wanted, text) in enumerate(zip(wanted, rows["record_values"].to_pylist(), strict=True)):
        resource = orjson.loads(text) if is_wanted and text else None
        if not isinstance(resource, dict) or resource.get("resourceType") != rows["record_type"][at].as_py():
            continue
        told = columns_of(resource, None)
        server = configured.get(objects[at])
        columns["server"][at] = told["server"] if server is None else server
        for name in ("effective_text", "effective_end_text"):
            columns[name][at] = told[name]
        columns["patient_identifiers"][at] = patient_of(resource, None, settings.fhir)["patient_identifiers"]
        if told["resource_id"]:
            key = keys.record_key(sources[at], columns["server"][at], told["natural_key"])
            columns["record_key"][at] = columns["file_key"][at] = key
    for name, values in columns.items():
        place, field = rows.schema.get_field_index(name), rows.schema.field(name)
        rows = rows.set_column(place, field, pa.array(values, field.type))
    return rows


def _configured(lake: Lake, settings: Settings, rows: pa.Table) -> Mapping[str, str | None]:
    """By object_id, the server that is configured for its file."""
    sources = {source.name: source for source in settings.sources}
    if not settings.fhir.servers and not any(source.fhir_server for source in sources.values()):
        return {}
    within = {"raw_files": {"batch_id": rows["batch_id"].unique().to_pylist()}}
    with connect(lake, ["raw_files"], within=within) as connection:
        found = connection.execute("SELECT object_id, source, uri, member FROM raw_files").fetchall()
    return {
        one: server_of(sources[source], settings.fhir, uri, member)
        for one, source, uri, member in found
        if source in sources
    }
