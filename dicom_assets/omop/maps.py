"""The user's own ids: person by PatientID and issuer, visit and procedure by accession number.

Belongs here: reading these files, and the look-up. Does not belong here: what happens to what is not in them.

A file is CSV (UTF-8, with a header line) or Parquet. Column names are compared without regard to case, space, `_`
and `-`. person_map: PatientID, person_id, and IssuerOfPatientID if ids of several issuers may be equal; with that
column an empty issuer means a patient without one, without it every issuer matches. visit_map, procedure_map:
AccessionNumber and visit_occurrence_id or procedure_occurrence_id, and StudyInstanceUID or PatientID where accession
numbers alone are not unique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from dicom_assets.omop.concepts import MappingError

Key = tuple[str, ...]


@dataclass(frozen=True)
class IdMap:
    """One mapping: the columns that are its key, and the ids."""

    columns: tuple[str, ...] = ()
    ids: Mapping[Key, int] = field(default_factory=dict)

    def get(self, values: Mapping[str, str | None]) -> int | None:
        """The id for these values of the key's columns; empty values of the first column never match."""
        if not self.columns:
            return None
        key = tuple((values.get(column) or "").strip() for column in self.columns)
        return self.ids.get(key) if key[0] else None


@dataclass(frozen=True)
class IdMaps:
    """The user's mappings; an absent file is an empty mapping."""

    persons: IdMap = IdMap()
    visits: IdMap = IdMap()
    procedures: IdMap = IdMap()


def load_maps(person: str | None, visit: str | None, procedure: str | None) -> IdMaps:
    """Reads the mapping files. Raises MappingError; the message holds row numbers, never a value."""
    order = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    return IdMaps(
        _load(person, "person_map", ("PatientID",), ("IssuerOfPatientID",), "person_id"),
        _load(visit, "visit_map", ("AccessionNumber",), order, "visit_occurrence_id"),
        _load(procedure, "procedure_map", ("AccessionNumber",), order, "procedure_occurrence_id"),
    )


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _load(path: str | None, setting: str, required: Sequence[str], optional: Sequence[str], target: str) -> IdMap:
    if path is None:
        return IdMap()
    table = _read(path, setting)
    found = {_plain(name): name for name in table.column_names}
    missing = [name for name in (*required, target) if _plain(name) not in found]
    if missing:
        raise MappingError(f"omop.{setting} lacks the column {', '.join(missing)}")
    columns = (*required, *(name for name in optional if _plain(name) in found))
    keys = zip(*(_texts(table, found[_plain(name)]) for name in columns), strict=True)
    ids: dict[Key, int] = {}
    for number, (key, text) in enumerate(zip(keys, _texts(table, found[_plain(target)]), strict=True), start=2):
        if not key[0]:
            continue
        one = _integer(text, setting, target, number)
        if ids.setdefault(key, one) != one:
            raise MappingError(f"omop.{setting}: row {number} gives another {target} for a key that stands above")
    return IdMap(columns, ids)


def _integer(text: str, setting: str, target: str, number: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 < value < 2**31:
        raise MappingError(f"omop.{setting}: {target} in row {number} is not a positive 32-bit integer")
    return value


def _texts(table: pa.Table, name: str) -> list[str]:
    return [(value or "").strip() for value in table[name].cast(pa.string()).to_pylist()]


def _read(path: str, setting: str) -> pa.Table:
    """The file, every column of a CSV as the text that was written: `007` stays `007`."""
    try:
        with Path(path).open("rb") as file:
            if file.read(4) == b"PAR1":
                return pq.read_table(path)
        with pc.open_csv(path) as reader:
            names = reader.schema.names
        convert = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        return pc.read_csv(path, convert_options=convert)
    except (OSError, pa.ArrowException):
        raise MappingError(f"omop.{setting} cannot be read as CSV (UTF-8) or Parquet") from None
