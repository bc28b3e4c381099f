"""The types of configured clinical datasets: inferred once, pinned for ever, shown as views of typed columns.

Belongs here: which type a column of texts has, the pins beside the tables (`_datasets/{name}.json`), the views. Does
not belong here: reading files, which rows are refused (`batch.datasets`).

Whether a text has a type is judged by DuckDB, which reads it, and by the same SQL that the views read it with. Names of
columns come from outside, and reach SQL as `quoting` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress

from dicom_assets.lake.quoting import named, pointed, quoted
from dicom_assets.storage.files import LakeFiles

FOLDER = "_datasets"

_DAY = r"\d{4}-\d{2}-\d{2}"
_CLOCK = rf"{_DAY}[T ]\d{{2}}:\d{{2}}(:\d{{2}}(\.\d{{1,6}})?)?"
_PATTERNS: Mapping[str, str] = {
    "BOOLEAN": "(?i)true|false",
    "BIGINT": "[+-]?(0|[1-9][0-9]{0,17})",
    "DOUBLE": r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,3})?",
    "DECIMAL_COMMA": r"[+-]?(0|[1-9][0-9]{0,14})(,[0-9]{1,17})?",
    "DATE": _DAY,
    "TIMESTAMP": _CLOCK,
    "TIMESTAMPTZ": rf"{_CLOCK}(Z|[+-]\d{{2}}:?\d{{2}})",
}
TYPES = (*_PATTERNS, "VARCHAR")
"""Types in SQL, the narrowest first. A number with leading zeros is a text: it is a code; so is one of more digits than
its type holds. A time without an offset is another type than one with an offset. DECIMAL_COMMA is a number whose
fraction stands behind a comma, where a dataset says so; it is read as a DOUBLE."""

_DIGITS = 17
"""Significant digits that a DOUBLE gives back as they were written (IEEE 754)."""


def cast(text: str, kind: str) -> str:
    """SQL that reads a text as a type, as the views do: NULL when it is blank, or not of the type."""
    if kind == "DECIMAL_COMMA":
        return f"TRY_CAST(replace(trim({text}), ',', '.') AS DOUBLE)"
    return text if kind == "VARCHAR" else f"TRY_CAST(trim({text}) AS {kind})"


def fits(text: str, kind: str) -> str:
    """SQL for whether a text is blank, or of a type and read by DuckDB as what was written."""
    if kind == "VARCHAR":
        return "true"
    read = f"{cast(text, kind)} IS NOT NULL"
    if kind in ("DOUBLE", "DECIMAL_COMMA"):
        digits = f"ltrim(regexp_replace(regexp_replace({text}, '[eE].*', ''), '[^0-9]', '', 'g'), '0')"
        read += f" AND isfinite({cast(text, kind)}) AND length({digits}) <= {_DIGITS}"
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ"):
        # Years 1 to 9999 are what Python holds, and with it whoever fetches rows; an offset may move a day beyond.
        first, last = ("0002", "9998") if kind == "TIMESTAMPTZ" else ("0001", "9999")
        read += f" AND substr(trim({text}), 1, 4) BETWEEN '{first}' AND '{last}'"
    if kind in ("TIMESTAMP", "TIMESTAMPTZ"):
        # 24:00 is the next day to DuckDB, and no time to others; an offset of more than 15:59 moves nothing sensible.
        read += f" AND substr(trim({text}), 12, 2) <> '24'"
    pattern = quoted(_PATTERNS[kind])
    return f"(trim({text}) = '' OR (regexp_full_match(trim({text}), {pattern}) AND {read}))"


def pins(files: LakeFiles, dataset: str) -> dict[str, str]:
    """The pinned types of a dataset by column; empty before its first file. Raises LakeError, ValueError."""
    try:
        found = json.loads(files.get(_path(dataset)))
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict) or not set(found.values()) <= set(TYPES):
        raise ValueError(f"the pinned types of dataset {dataset} are not what this release writes")
    return found


def pinned(files: LakeFiles) -> dict[str, dict[str, str]]:
    """The pinned types of every dataset whose pins can be read. Raises LakeError."""
    found = {}
    for path in files.names(FOLDER):
        dataset = path.rsplit("/", 1)[-1].removesuffix(".json")
        with suppress(ValueError):
            found[dataset] = pins(files, dataset)
    return found


def pin(files: LakeFiles, dataset: str, types: Mapping[str, str]) -> None:
    """Pins the types of a dataset; to be called under the lock of `clinical`. Raises LakeError."""
    files.put(_path(dataset), json.dumps(dict(types), ensure_ascii=False, indent=1).encode())


def _path(dataset: str) -> str:
    return f"{FOLDER}/{dataset}.json"


_OWN = ("source", "record_key", "patient_id", "patient_issuer", "effective_at")


def views(files: LakeFiles) -> dict[str, str]:
    """SQL of a view `clinical_{dataset}` for each pinned dataset: what `clinical` says of it, in typed columns.

    A dataset whose pins cannot be read gets a view that says so when it is asked. Raises LakeError.
    """
    found = {}
    for path in files.names(FOLDER):
        dataset = path.rsplit("/", 1)[-1].removesuffix(".json")
        try:
            found[f"clinical_{dataset}"] = _view(dataset, pins(files, dataset))
        except ValueError:
            found[f"clinical_{dataset}"] = broken(f"clinical_{dataset}", f"{FOLDER}/{dataset}.json cannot be read")
    return found


def broken(view: str, why: str) -> str:
    """SQL of a view that cannot be made: it fails when it is asked, and says why, whatever columns it is asked for."""
    sentence = f"The view {view} cannot be shown: {why}."
    return f"SELECT error({quoted(sentence)}) AS {named(sentence)}"


def _view(dataset: str, types: Mapping[str, str]) -> str:
    columns = ["source", "record_key", "PatientID AS patient_id", "IssuerOfPatientID AS patient_issuer", "effective_at"]
    shown = shown_names(types)
    for name, kind in types.items():
        text = pointed("record_values", name)
        columns.append(f"{cast(text, kind)} AS {named(shown[name])}")
    taken = {name.casefold() for name in (*_OWN, *shown.values())}
    for name, kind in types.items():
        if kind == "TIMESTAMPTZ" and f"{shown[name]}_offset".casefold() not in taken:  # which the instant forgets
            offset = f"regexp_extract({pointed('record_values', name)}, '(Z|[+-][0-9:]+) *$', 1)"
            columns.append(f"nullif({offset}, '') AS {named(shown[name] + '_offset')}")
    return f"SELECT {', '.join(columns)} FROM clinical WHERE record_type = {quoted(dataset)}"


def shown_names(names: Iterable[str]) -> dict[str, str]:
    """The column of the view for each column of a dataset: its name, as far as SQL can tell it from the others.

    SQL does not tell capitals from small letters, and knows no NUL. A name that is a column of every dataset gets
    `_written`, one that is there already `#2` and so on.
    """
    taken = {name.casefold() for name in _OWN}
    result = {}
    for name in names:
        base = name.replace("\0", "\ufffd") or "\ufffd"
        base = f"{base}_written" if base.casefold() in _OWN else base
        unique, number = base, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{base}#{number}"
        taken.add(unique.casefold())
        result[name] = unique
    return result
