"""Values of promoted columns from headers as the lake keeps them, in the DICOM JSON Model (PS3.18 F).

Belongs here: following a path into a header, and the typed value. Does not belong here: what a path may say
(`schema.promoted`), how one value is converted (`columns`).

New objects and those that are there already go through this alone, so both have the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.dicom.columns import Misfit, converter_of
from dicom_assets.schema.promoted import PromotedColumn, Step


class _Misfits:
    """A value that is there and does not fit."""


MISFIT = _Misfits()


def values_of(headers: pa.Array | pa.ChunkedArray, columns: Sequence[PromotedColumn]) -> list[pa.Array]:
    """The values of some columns, one for each header (JSON text); NULL where there is none or it does not fit."""
    found = _found(headers, columns)
    return [
        pa.array([None if value is MISFIT else value for value in values], column.type)
        for values, column in zip(found, columns, strict=True)
    ]


def misfits(headers: pa.Array | pa.ChunkedArray, column: PromotedColumn) -> int:
    """In how many headers a value is there that does not fit its column."""
    return sum(value is MISFIT for value in _found(headers, [column])[0])


def _found(headers: pa.Array | pa.ChunkedArray, columns: Sequence[PromotedColumn]) -> list[list[Any]]:
    # A header that does not have what names the last step anywhere need not be taken apart.
    readers = [(_needle(column.steps[-1]), column.steps, _reading(column)) for column in columns]
    found: list[list[Any]] = [[] for _ in columns]
    for text in headers.to_pylist():
        parsed: dict[str, Any] | None = None
        for values, (needle, steps, read) in zip(found, readers, strict=True):
            if text is None or needle not in text:
                values.append(None)
                continue
            if parsed is None:
                parsed = orjson.loads(text)
            values.append(read(_elements(parsed, steps)))
    return found


def _needle(step: Step) -> str:
    return f'"{step.key}"' if step.creator is None else orjson.dumps(step.creator)[1:-1].decode()


def _elements(item: dict[str, Any], steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    """The elements at the end of a path: one for each item of the sequences on the way that has it."""
    step = steps[0]
    key = step.key if step.creator is None else _private_key(item, step)
    element = item.get(key) if key else None
    if not isinstance(element, dict):
        return
    if len(steps) == 1:
        yield element
    elif element.get("vr") == "SQ":
        for inner in element.get("Value") or ():
            if isinstance(inner, dict):
                yield from _elements(inner, steps[1:])


def _private_key(item: dict[str, Any], step: Step) -> str | None:
    """Where a private element stands: its creator has reserved a block in each item by itself (PS3.5 7.8.1)."""
    group = f"{step.key[:4]}00"
    for key, creator in item.items():
        if key.startswith(group) and key >= f"{group}10" and _names(creator) == step.creator:
            return f"{step.key[:4]}{key[6:]}{step.key[6:]}"
    return None


def _names(creator: dict[str, Any]) -> str | None:
    """Whom a private creator element names."""
    values: list[Any] = creator.get("Value") or []
    return str(values[0]).strip() if len(values) == 1 else None


def _reading(column: PromotedColumn) -> Callable[[Iterator[dict[str, Any]]], Any]:
    convert = converter_of(column.vr)

    def several(elements: Iterator[dict[str, Any]]) -> Any:
        try:
            values = [None if v is None else convert(v) for one in elements for v in one.get("Value") or ()]
        except Misfit:
            return MISFIT
        return values if any(value is not None for value in values) else None

    def single(elements: Iterator[dict[str, Any]]) -> Any:
        values = [v for one in elements for v in one.get("Value") or ()]
        if len(values) > 1:
            return MISFIT
        try:
            return convert(values[0]) if values and values[0] is not None else None
        except Misfit:
            return MISFIT

    return several if column.multiple else single
