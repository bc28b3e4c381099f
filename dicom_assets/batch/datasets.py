"""Fitting staged records of configured datasets to their pinned types; what does not fit becomes an error.

Belongs here: which staged rows stay, and the error rows of the others. Does not belong here: types and pins
(`lake.datasets`), reading (`dicom_assets.clinical`).
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.batch.staging import SCHEMAS, Part, Staging
from dicom_assets.clinical.dialect import plain_name
from dicom_assets.lake import datasets
from dicom_assets.lake.codes import CODES
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.registry import CLINICAL
from dicom_assets.settings import ClinicalSettings, DatasetSettings

ERRORS_FILE = 999_999
"""Number of the staged file that holds these errors; chunks are numbered from 0."""

_CODE = "RECORD_INVALID"
_ALL_INVALID = "RECORDS_ALL_INVALID"


def fit(lake: Lake, staging: Staging, settings: ClinicalSettings, run_id: str) -> int:
    """Refuses staged records whose values do not fit the pinned types of their dataset; how many.

    A file of which no record is left is quarantined.

    The first batch that brings a column pins its type, by all the values that it brings. Later files do not change it.
    Raises LakeError.
    """
    known = {dataset.name: dataset for dataset in settings.datasets}
    if not known or not any(
        name in known
        for batch in staging.batches(Part.CLINICAL, ["record_type"])
        for name in batch["record_type"].unique().to_pylist()
    ):
        return 0
    rows = staging.read(Part.CLINICAL)
    refused: dict[int, str] = {}
    with lake.committing(CLINICAL.name):
        for name in sorted(set(rows["record_type"].to_pylist()) & known.keys()):
            refused |= _refused(lake, known[name], rows)
    if not refused:
        return 0
    places = _places(staging)
    wrong = [(index, row) for index, row in enumerate(rows.to_pylist()) if index in refused]
    errors = [_error(row, places, refused[index], run_id) for index, row in wrong]
    kept = rows.filter(pa.array([index not in refused for index in range(len(rows))]))
    staging.clear(Part.CLINICAL)
    if len(kept):
        staging.put(Part.CLINICAL, 0, kept)
    errors += _emptied(staging, kept, errors)
    staging.put(Part.ERRORS, ERRORS_FILE, pa.Table.from_pylist(errors, schema=SCHEMAS[Part.ERRORS]))
    return len(refused)


def _emptied(staging: Staging, kept: pa.Table, errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Quarantines the files of which no record is left, in the staged ledger; their error rows."""
    counts = Counter(error["object_id"] for error in errors)
    for name in kept["object_id"].unique().to_pylist():
        counts.pop(name, None)
    if not counts:
        return []
    earlier = Counter(
        row["object_id"]
        for row in staging.read(Part.ERRORS, ["object_id", "stage"]).to_pylist()
        if row["stage"] == "record"
    )
    ledger = staging.read(Part.LEDGER).to_pylist()
    code = CODES[_ALL_INVALID]
    for row in ledger:
        if row["object_id"] in counts:
            row |= {"outcome": str(code.outcome), "code": code.name}
    staging.clear(Part.LEDGER)
    staging.put(Part.LEDGER, 0, pa.Table.from_pylist(ledger, schema=SCHEMAS[Part.LEDGER]))
    first = {error["object_id"]: error for error in reversed(errors)}
    return [
        {
            **first[name],
            "stage": "read",
            "code": code.name,
            "record": 0,
            "severity": str(code.severity),
            "detail": "{0} of {0} records are invalid".format(count + earlier[name]),
        }
        for name, count in counts.items()
    ]


def _refused(lake: Lake, dataset: DatasetSettings, rows: pa.Table) -> dict[int, str]:
    """Row numbers that do not fit, with why; pins what is not pinned yet."""
    kinds = rows["record_type"].to_pylist()
    written = rows["record_values"].to_pylist()
    records = {index: orjson.loads(written[index]) for index, kind in enumerate(kinds) if kind == dataset.name}
    pinned = datasets.pins(lake.files, dataset.name)
    names = dict.fromkeys(name for record in records.values() for name in record)
    fresh = {
        name: _kind(name, dataset, [record[name] for record in records.values() if record.get(name)])
        for name in names
        if name not in pinned
    }
    if fresh:
        pinned = {**pinned, **fresh}
        datasets.pin(lake.files, dataset.name, pinned)
    refused = {}
    for index, record in records.items():
        wrong = [name for name, value in record.items() if value and not datasets.FITS[pinned[name]](value.strip())]
        if wrong:
            refused[index] = "; ".join(f"column {name} is no {pinned[name]}" for name in wrong)
    return refused


def _kind(name: str, dataset: DatasetSettings, values: list[str]) -> str:
    """Identifiers and keys are texts, whatever they look like."""
    texts = {plain_name(column) for column in (dataset.patient_id_column, *dataset.key_columns)}
    texts |= {plain_name(dataset.issuer_column)} if dataset.issuer_column else set()
    return "VARCHAR" if plain_name(name) in texts else datasets.infer(values)


def _places(staging: Staging) -> dict[str, dict[str, Any]]:
    raw = staging.read(Part.RAW, ["object_id", "uri", "member"]).to_pylist()
    return {row["object_id"]: row for row in raw}


def _error(row: dict[str, Any], places: dict[str, dict[str, Any]], detail: str, run_id: str) -> dict[str, Any]:
    place = places.get(row["object_id"], {})
    return {
        "batch_id": row["batch_id"],
        "object_id": row["object_id"],
        "stage": "record",
        "code": _CODE,
        "record": row["record"],
        "severity": str(CODES[_CODE].severity),
        "detail": detail,
        "uri": place.get("uri"),
        "member": place.get("member"),
        "occurred_at": datetime.now(UTC),
        "run_id": run_id,
    }
