"""Fitting staged records of configured datasets to their pinned types; what does not fit becomes an error.

Belongs here: which staged rows stay, and the error rows of the others. Does not belong here: types and pins
(`lake.dataset_types`), reading (`dicom_assets.clinical`).

DuckDB looks at the values as they stream by, one row for each value: names of columns are values to it. Two passes,
whatever the number of records and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.clinical.dialect import plain_name
from dicom_assets.lake import dataset_types as datasets
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import CLINICAL
from dicom_assets.settings import ClinicalSettings, DatasetSettings
from dicom_assets.storage.files import LakeError

ERRORS_FILE = 900_000
"""Number of the first staged file that holds these errors, one for each file of records; chunks are numbered from 0."""

EMPTIED_FILE = 999_997
"""Number of the staged file with the errors of files of which no record is left."""

_CODE = "RECORD_INVALID"
_ALL_INVALID = "RECORDS_ALL_INVALID"

_VALUES = """
-- one row per value of a dataset's records
SELECT place, unnest(map_keys(items)) AS name, unnest(map_values(items)) AS value,
    unnest(range(cardinality(items)::BIGINT)) AS position
FROM (SELECT place, record_values::JSON::MAP(VARCHAR, VARCHAR) AS items FROM records WHERE record_type = $dataset)
"""

_INFERRED = f"""
-- one row per column that is not pinned yet, in the order of the columns: the types that all its values fit
SELECT name, count(*) FILTER (trim(value) <> '') AS filled,
    [{", ".join(f"coalesce(bool_and({datasets.fits('value', kind)}), true)" for kind in datasets.TYPES)}] AS fits
FROM ({_VALUES}) ANTI JOIN pinned USING (name)
GROUP BY name
ORDER BY min(place), min(position)
"""

_REFUSED = f"""
-- one row per record with a value that does not fit its column's type
SELECT place, string_agg('column ' || name || ' is no ' || type, '; ' ORDER BY position) AS detail
FROM ({_VALUES}) JOIN pinned USING (name)
WHERE NOT CASE type {" ".join(f"WHEN '{kind}' THEN {datasets.fits('value', kind)}" for kind in datasets.TYPES)} END
GROUP BY place
ORDER BY place
"""


def fit(lake: Lake, staging: Staging, settings: ClinicalSettings, run_id: str) -> int:
    """Refuses staged records whose values do not fit the pinned types of their dataset; how many.

    A file of which no record is left is quarantined.

    The first batch that brings a column pins its type, by all the values that it brings. Later files do not change it.
    Raises LakeError.
    """
    known = {dataset.name: dataset for dataset in settings.datasets}
    brought = {
        name
        for batch in (staging.batches(Part.CLINICAL, ["record_type"]) if known else ())
        for name in batch["record_type"].unique().to_pylist()
        if name in known
    }
    refused: dict[int, str] = {}
    for name in sorted(brought):
        refused |= _refused(lake, staging, known[name])
        give_back()
    if refused:
        _quarantine_emptied(staging, _take_out(staging, refused, run_id))
        for part in (Part.CLINICAL, Part.ERRORS):
            staging.complete_as_it_is(part)
    return len(refused)


def _quarantine_emptied(staging: Staging, errors: Sequence[dict[str, Any]]) -> None:
    """Quarantines the files of which no record is left, in the staged ledger, with an error row for each."""
    left = {
        name
        for batch in staging.batches(Part.CLINICAL, ["object_id"])
        for name in batch["object_id"].unique().to_pylist()
    }
    emptied = {error["object_id"]: error for error in reversed(errors) if error["object_id"] not in left}
    if not emptied:
        return
    counts = Counter(
        row["object_id"]
        for row in staging.read(Part.ERRORS, ["object_id", "stage"]).to_pylist()
        if row["stage"] == "record"
    )
    code = CODES[_ALL_INVALID]
    ledger = staging.read_whole(Part.LEDGER).to_pylist()
    for row in ledger:
        if row["object_id"] in emptied:
            row |= {"outcome": str(code.outcome), "code": code.name}
    staging.stage(Part.LEDGER, pa.Table.from_pylist(ledger, schema=SCHEMAS[Part.LEDGER]))
    rows = [
        {
            **error,
            "stage": "read",
            "code": code.name,
            "record": 0,
            "severity": str(code.severity),
            "detail": "{0} of {0} records are invalid".format(counts[name]),
        }
        for name, error in emptied.items()
    ]
    staging.put(Part.ERRORS, EMPTIED_FILE, pa.Table.from_pylist(rows, schema=SCHEMAS[Part.ERRORS]))


def _records(staging: Staging) -> pa.RecordBatchReader:
    """Staged records one batch after the other, numbered in their order."""
    schema = pa.schema([("record_type", pa.string()), ("record_values", pa.string()), ("place", pa.int64())])

    def numbered() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in staging.batches(Part.CLINICAL, ["record_type", "record_values"]):
            places = pa.array(range(first, first + len(batch)), pa.int64())
            yield pa.record_batch([batch["record_type"], batch["record_values"], places], schema=schema)
            first += len(batch)

    return pa.RecordBatchReader.from_batches(schema, numbered())


def _asked(lake: Lake, staging: Staging, dataset: str, pinned: Mapping[str, str], sql: str) -> pa.Table:
    """The answer to a question about a dataset's values."""
    with lake.cursor() as connection:
        connection.register("records", _records(staging))
        columns = [pa.array(pinned.keys(), pa.string()), pa.array(pinned.values(), pa.string())]
        connection.register("pinned", pa.table(columns, names=["name", "type"]))
        return connection.sql(sql, params={"dataset": dataset}).to_arrow_table()


def _refused(lake: Lake, staging: Staging, dataset: DatasetSettings) -> dict[int, str]:
    """Places of records that do not fit, with why; pins what is not pinned yet."""
    pinned = _pins(lake, dataset.name)
    inferred = _asked(lake, staging, dataset.name, pinned, _INFERRED).to_pylist()
    if inferred:
        fresh = {row["name"]: _kind(dataset, row) for row in inferred}
        with lake.committing(CLINICAL.name):  # held for the pins alone; who was first has pinned
            pinned = _pins(lake, dataset.name)
            datasets.pin(lake.files, dataset.name, {**fresh, **pinned})
    if not pinned:
        return {}  # what was inferred from these values fits them
    found = _asked(lake, staging, dataset.name, pinned, _REFUSED)
    return dict(zip(found["place"].to_pylist(), found["detail"].to_pylist(), strict=True))


def _pins(lake: Lake, dataset: str) -> dict[str, str]:
    try:
        return datasets.pins(lake.files, dataset)
    except ValueError:
        raise LakeError(
            f"The types of dataset {dataset} cannot be read from {datasets.FOLDER}/{dataset}.json in the lake. Bring "
            "the file back from a copy, or delete it: then the next batch of the dataset pins types anew."
        ) from None


def _kind(dataset: DatasetSettings, inferred: Mapping[str, Any]) -> str:
    """Identifiers and keys are texts, whatever they look like; so is what has no value yet.

    Numbers have their fraction behind the mark that is set; the other mark may group thousands, which nothing tells.
    """
    texts = {plain_name(column) for column in (dataset.patient_id_column, *dataset.key_columns)}
    texts |= {plain_name(dataset.issuer_column)} if dataset.issuer_column else set()
    if plain_name(inferred["name"]) in texts or not inferred["filled"]:
        return "VARCHAR"
    other = "DECIMAL_COMMA" if dataset.decimal == "." else "DOUBLE"
    return next(kind for kind, fits in zip(datasets.TYPES, inferred["fits"], strict=True) if fits and kind != other)


def _take_out(staging: Staging, refused: Mapping[int, str], run_id: str) -> list[dict[str, Any]]:
    """Rewrites the staged files that hold refused records without them, and stages their errors; these."""
    all_errors: list[dict[str, Any]] = []
    places = _places(staging)
    first = 0
    for name in staging.names(Part.CLINICAL):
        number = int(name.rsplit("/", 1)[-1].split(".")[0])
        rows = pa.Table.from_batches(staging.files.arrow_batches(name), SCHEMAS[Part.CLINICAL])
        wrong = [place for place in range(len(rows)) if first + place in refused]
        if wrong:
            told = rows.select(["batch_id", "object_id", "record"]).take(wrong).to_pylist()
            errors = [
                _error(row, places, refused[first + place], run_id) for place, row in zip(wrong, told, strict=True)
            ]
            all_errors += errors
            staging.put(Part.ERRORS, ERRORS_FILE + number, pa.Table.from_pylist(errors, SCHEMAS[Part.ERRORS]))
            kept = pa.array([first + place not in refused for place in range(len(rows))])
            staging.put(Part.CLINICAL, number, rows.filter(kept))
        first += len(rows)
    return all_errors


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
