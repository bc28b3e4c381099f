"""Taking what is erased out of the lake's plain files: claims, returns, looks, staging, plans, landed windows.

Belongs here: each file's turn. Each may be done twice. Does not belong here: tables (`out_of_tables`), which objects
(`target`), the files of cohorts (`curation.cohorts.erasing`).

Claims are written once and never changed but here: an object that was erased keeps its line, without a name and without
a place, so that the books of its batch still begin with what was claimed. Indexes of claims are caches, made anew by
whoever needs them next.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch import forwarding, withdrawals
from dicom_assets.batch.erasure.out_of_tables import nameless, outcomes, reasons
from dicom_assets.batch.erasure.record import SELFTEST, Record
from dicom_assets.batch.organize import FOLDER as ORGANIZE
from dicom_assets.curation.cohorts import erasing as cohorts
from dicom_assets.lake import file_keys, summaries, torn
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.landing import claim_index, claims, looks, returns, uri_index
from dicom_assets.service.window_files import leave_out_entries
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles, TornFile
from dicom_assets.storage.traces import Terms

_SCRATCH = ("verify-", "erasure-")
"""What is staged for a while and published by nobody; the beginnings of its names."""


_REASONS_FILE = 999_990
"""Number of the staged file that says what of a batch was erased; chunks are numbered from 0."""


def take_out(lake: Lake, record: Record, settings: Settings) -> None:
    """Takes everything of a record out of every file that is no table's. Raises LakeError."""
    files = lake.files
    for name in files.names(claims.FOLDER):
        _change(files, name, record)
    for name in files.names(returns.FOLDER):
        if name.endswith(".parquet"):
            _change(files, name, record)
    for name in files.names(forwarding.FOLDER):
        if name.endswith(".parquet"):
            rows = files.get_parquet(name)
            if _has(rows, record):
                files.put_parquet(name, _without("object_id", list(record.objects), rows))
    cohorts.take_out(files, settings, record.objects.keys(), Terms.of(record.terms))
    for folder in (claim_index.FOLDER, uri_index.FOLDER, summaries.FOLDER, file_keys.FOLDER):
        files.delete(folder)
    _out_of_staging(files, record)
    _out_of_looks(files, record)
    _out_of_plans(files, record)
    _out_of_withdrawals(files, record)
    if record.scope != SELFTEST:
        _out_of_set_aside(files)
        _out_of_windows(record, settings)


def _change(files: LakeFiles, name: str, record: Record) -> None:
    """Takes the names of what is erased out of one Parquet file of claims or returns."""
    try:
        rows = files.get_parquet(name)
    except (TornFile, FileNotFoundError):
        return  # a torn claim is set aside by the next ingest, and what is set aside goes
    if _has(rows, record):
        files.put_parquet(name, nameless(record, rows))


def _has(rows: pa.Table, record: Record) -> bool:
    wanted = pa.array(list(record.objects), pa.string())
    return bool(pc.any(pc.is_in(rows["object_id"], value_set=wanted)).as_py())


def _out_of_staging(files: LakeFiles, record: Record) -> None:
    """A batch that waits keeps what is staged of others, and of what is erased a row without a name."""
    changes: dict[Part, Callable[[pa.Table], pa.Table]] = {
        Part.RAW: partial(nameless, record),
        Part.LEDGER: lambda rows: outcomes(record, rows, ()),
        Part.FLAT: partial(_without, "object_id", list(record.objects)),
        Part.REFUSED: partial(_without, "object_id", list(record.objects)),
        Part.CLINICAL: partial(_without_records, record),
        Part.CORRECTION: partial(_without, "object_id", list(record.objects)),
        Part.TOUCHED: partial(_without, "study_key", record.whole),
        Part.ERRORS: partial(_without, "object_id", list(record.objects)),
    }
    for batch in sorted({name.split("/")[1] for name in files.names(STAGING)}):
        staging = Staging(files, batch)
        if batch.startswith(_SCRATCH):
            staging.remove()
            continue
        for part, change in changes.items():
            _rewrite(staging, part, change)
        if batch in record.batches and staging.names(Part.LEDGER):
            staging.put(Part.ERRORS, _REASONS_FILE, reasons(record, SCHEMAS[Part.ERRORS].empty_table(), [batch]))
            staging.complete_as_it_is(Part.ERRORS)


def _without(column: str, values: list[str], rows: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows[column], pa.array(values, pa.string()))))


def _without_records(record: Record, rows: pa.Table) -> pa.Table:
    gone = {one[:3] for one in record.records}
    named = zip(*(rows[name].to_pylist() for name in ("batch_id", "object_id", "record_key")), strict=True)
    return rows.filter(pa.array([one not in gone for one in named], pa.bool_()))


def _rewrite(staging: Staging, part: Part, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes the rows of a part, file by file."""
    rows = changed = 0
    for name in staging.names(part):
        # a file that an erasure has emptied, and was broken off behind that, has no batch to tell its columns
        table = staging.file_rows(part, name)
        kept = change(table)
        rows += len(kept)
        if not kept.equals(table):
            changed += 1
            staging.put(part, int(name.rpartition("/")[2].removesuffix(".arrow")), kept)
    if changed:
        staging.complete(part, rows)


def _out_of_looks(files: LakeFiles, record: Record) -> None:
    """Takes digests of gone uris out of the samples that looks keep."""
    gone = {looks.digest(uri) for uri in record.uris}
    for name in files.names(f"{looks.FOLDER}/sources"):
        try:
            kept = json.loads(files.get(name))
        except (FileNotFoundError, ValueError):
            continue
        changed = False
        for look in (kept.get("believed"), kept.get("doubted")):
            if look and gone.intersection(look.get("sample", ())):
                look["sample"] = [one for one in look["sample"] if one not in gone]
                changed = True
        if changed:
            files.put(name, json.dumps(kept).encode())


def _out_of_plans(files: LakeFiles, record: Record) -> None:
    """Takes names and places of what is erased out of the plans by which mode organize has moved things."""
    new = {one: record.name_of(one) for one in record.objects}
    for name in files.names(f"{ORGANIZE}/plans"):
        if not name.endswith(".parquet"):
            continue
        rows = files.get_parquet(name)
        if not _has(rows, record):
            continue
        if name.endswith("/plan/rows.parquet"):
            listed = nameless(record, rows).to_pylist()
            for row in listed:
                if row["object_id"] in new.values():
                    row.update(action=None, target=None)
        else:
            listed = [row for row in rows.to_pylist() if row["object_id"] not in new]
        files.put_parquet(name, pa.Table.from_pylist(listed, schema=rows.schema))


def _out_of_withdrawals(files: LakeFiles, record: Record) -> None:
    """Takes what is erased out of what says which instances were gone at a source."""
    for name in files.names(withdrawals.FOLDER):
        rows = files.get_parquet(name)
        kept = _without("study_key", record.whole, _without("object_id", list(record.objects), rows))
        if len(kept) < len(rows):
            files.put_parquet(name, kept)


def _out_of_set_aside(files: LakeFiles) -> None:
    """What a power cut has torn is kept for a person to look at, and nobody knows what is in it: it goes."""
    for name in files.every_name(torn.FOLDER):
        if name != torn.MARK:
            files.remove_whole(name)


def _out_of_windows(record: Record, settings: Settings) -> None:
    """Takes entries of erased studies and instances out of the windows that were landed of DICOM services."""
    wanted = frozenset(record.terms)
    if not wanted:
        return
    for service in settings.services:
        leave_out_entries(service, wanted)
