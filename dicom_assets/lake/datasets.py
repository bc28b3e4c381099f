"""The types of configured clinical datasets: inferred once, pinned for ever, shown as views of typed columns.

Belongs here: which type a column of texts has, the pins beside the tables (`_datasets/{name}.json`), the views. Does
not belong here: reading files, which rows are refused (`batch.datasets`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime

from dicom_assets.lake.files import LakeFiles

FOLDER = "_datasets"

_INTEGER = re.compile(r"^[+-]?(0|[1-9][0-9]{0,17})$")
_NUMBER = re.compile(r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$")


def _is_date(text: str) -> bool:
    return len(text) == 10 and _parses(text, date.fromisoformat)


def _is_time(text: str) -> bool:
    return len(text) > 10 and _parses(text, datetime.fromisoformat)


def _parses(text: str, parse: Callable[[str], object]) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


FITS: Mapping[str, Callable[[str], bool]] = {
    "BOOLEAN": lambda text: text.lower() in ("true", "false"),
    "BIGINT": lambda text: _INTEGER.match(text) is not None,
    "DOUBLE": lambda text: _NUMBER.match(text) is not None,
    "DATE": _is_date,
    "TIMESTAMP": _is_time,
    "VARCHAR": lambda text: True,
}
"""Types in SQL, the narrowest first. A number with leading zeros is a text: it is a code."""


def infer(values: Iterable[str]) -> str:
    """The narrowest type that fits every value; text when there is none."""
    found = {value.strip() for value in values}
    if not found:
        return "VARCHAR"
    return next(name for name, fits in FITS.items() if all(map(fits, found)))


def pins(files: LakeFiles, dataset: str) -> dict[str, str]:
    """The pinned types of a dataset by column; empty before its first file. Raises LakeError."""
    try:
        found: dict[str, str] = json.loads(files.get(_path(dataset)))
    except FileNotFoundError:
        return {}
    return found


def pin(files: LakeFiles, dataset: str, types: Mapping[str, str]) -> None:
    """Pins the types of a dataset; to be called under the lock of `clinical`. Raises LakeError."""
    files.put(_path(dataset), json.dumps(dict(types), ensure_ascii=False, indent=1).encode())


def _path(dataset: str) -> str:
    return f"{FOLDER}/{dataset}.json"


def views(files: LakeFiles) -> dict[str, str]:
    """SQL of a view `clinical_{dataset}` for each pinned dataset: what `clinical` says of it, in typed columns."""
    found = {}
    for path in files.names(FOLDER):
        dataset = path.rsplit("/", 1)[-1].removesuffix(".json")
        columns = "".join(_column(name, kind) for name, kind in pins(files, dataset).items())
        found[f"clinical_{dataset}"] = (
            "SELECT source, record_key, PatientID AS patient_id, IssuerOfPatientID AS patient_issuer, effective_at"
            f"{columns} FROM clinical WHERE record_type = '{dataset}'"
        )
    return found


_OWN = {"source", "record_key", "patient_id", "patient_issuer", "effective_at"}


def _column(name: str, kind: str) -> str:
    path = json.dumps(name, ensure_ascii=False).replace("'", "''")
    shown = f"{name}_written" if name.lower() in _OWN else name
    quoted = shown.replace('"', '""')
    return f", CAST(trim(record_values ->> '$.{path}') AS {kind}) AS \"{quoted}\""
