"""What an erasure would take, place by place: what `--plan` says.

Belongs here: counting. Nothing is changed, and nothing but counts is told. Does not belong here: finding it (`target`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.erasure.record import Record
from dicom_assets.curation.cohorts import erasing as cohorts
from dicom_assets.fhir.imaging_study import NDJSON
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.landing import claims, returns
from dicom_assets.schema.registry import TABLES
from dicom_assets.service.window_files import entries_of
from dicom_assets.settings import Settings
from dicom_assets.storage.files import TornFile
from dicom_assets.storage.traces import Terms
from dicom_assets.storage.traces import places as places_of


def places(lake: Lake, settings: Settings, record: Record) -> Mapping[str, int]:
    """By table or kind of file, how many rows or files hold something of a record; zero ones too. Raises LakeError."""
    terms = Terms.of(record.terms)
    return {
        **record.rows,
        "lines of claims and returns": _lines(lake, record),
        "rows of cohorts": cohorts.rows_of(lake.files, record.objects.keys()),
        "staged files": _files(lake, STAGING, terms),
        "NDJSON files": _files(lake, NDJSON, terms),
        "entries of landed windows": _entries(record, settings),
        "files of older versions of tables": _older(lake),
    }


def _lines(lake: Lake, record: Record) -> int:
    gone, found = pa.array([*record.objects], pa.string()), 0
    for folder in (claims.FOLDER, returns.FOLDER):
        for name in lake.files.names(folder):
            if name.endswith(".parquet"):
                try:
                    ids = lake.files.get_parquet(name, ["object_id"])["object_id"]
                except (TornFile, FileNotFoundError):
                    continue
                found += pc.sum(pc.is_in(ids, value_set=gone)).as_py() or 0
    return found


def _files(lake: Lake, folder: str, terms: Terms) -> int:
    return sum(bool(places_of(lake.files.get(name), terms)) for name in lake.files.names(folder))


def _entries(record: Record, settings: Settings) -> int:
    unwanted = frozenset(record.terms)
    return sum(sum(entries_of(service, unwanted).values()) for service in settings.services)


def _older(lake: Lake) -> int:
    """Files of tables that no log names any more, or that only say what a table was."""
    older = 0
    for name in TABLES:
        known = lake.extents(name)
        kept = {*known.paths.tolist(), f"_delta_log/{known.version:020d}.json", "_delta_log/_last_checkpoint"}
        older += sum(path.removeprefix(f"{name}/") not in kept for path in lake.files.every_name(name))
    return older
