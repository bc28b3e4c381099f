"""A rule over promoted columns of a batch's rows: what they say stands in the headers, as pydicom understands these.

Belongs here: which rows are taken, and following a path through a data set of pydicom's. Does not belong here: what is
judged, that is taking values from headers (`dicom.from_header`), and the rule over all batches (`verification`).

Where nothing is promoted nothing is looked at. What pydicom cannot read of a header is passed over, and so is a value
that is not what its VR demands: whether it fits is for the column to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.checks.reopening import chosen
from dicom_assets.dicom.lenient import lenient
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.quoting import named
from dicom_assets.schema.promoted import PromotedColumn

_TEXTS = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UR", "UT"})
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})

_LARGEST = 2**53
"""Numbers from here on are not told apart by all of those that handle them."""


class _Unread(Exception):
    """pydicom cannot read it, or a value is not what its VR demands."""


def promoted_equal_headers(context: CheckContext) -> CheckResult:
    """A sample of rows, half of them with a value: their promoted columns = what pydicom finds in their headers."""
    lake = context.lake
    if not lake.columns or not context.settings.checks.promoted_rows:
        return CheckResult(True, 0, 0)
    with connect(lake, ["flat_metadata"], within=context.staging.scope("flat_metadata")) as connection:
        there = {str(column[0]) for column in connection.execute("FROM flat_metadata LIMIT 0").description}
        columns = [one.column for one in lake.columns if one.column.name in there]
        if not columns:
            return CheckResult(True, 0, 0)
        says = " OR ".join(f"{named(one.name)} IS NOT NULL" for one in columns)
        own = f"FROM flat_metadata WHERE batch_id = {context.batch} AND header IS NOT NULL"
        known = connection.execute(f"SELECT object_id, {says} {own}").fetchall()
        taken = pa.table({"object_id": pa.array(_sample(context, known), pa.string())})
        connection.register("taken", taken)
        listed = ", ".join(named(one.name) for one in columns)
        rows = arrow(connection, f"SELECT object_id, header, {listed} {own} AND object_id IN (FROM taken)").to_pylist()
    differing = sorted(row["object_id"] for row in rows if any(_differs(row, one) for one in columns))
    return CheckResult(not differing, len(rows), len(rows) - len(differing), differing[:SHOWN])


def _sample(context: CheckContext, known: Sequence[tuple[str, bool]]) -> list[str]:
    most, batch = context.settings.checks.promoted_rows, context.staging.batch_id
    full = chosen(batch, [one for one, says in known if says], most)
    empty = chosen(batch, [one for one, says in known if not says], max(most // 2, most - len(full)))
    return [*full[: most - len(empty)], *empty]


def _differs(row: dict[str, Any], column: PromotedColumn) -> bool:
    """Whether a row's column says something else than its header; False where pydicom cannot tell."""
    said = row[column.name]
    try:
        found = _values(json.loads(row["header"]), column)
        if not found:
            return said is not None
        values = [_value(column.vr, value) for value in found]
    except _Unread:
        return False
    if column.multiple:
        return bool(said != (values if any(value is not None for value in values) else None))
    return bool(said != (values[0] if len(values) == 1 else None))


def _values(header: dict[str, Any], column: PromotedColumn) -> list[Any]:
    """The values at the end of a path, of all items on the way, as pydicom gives them. Raises _Unread."""
    first = column.steps[0].key
    wanted = {key: one for key, one in header.items() if key[:4] == first[:4]}
    try:
        with lenient():
            return [value for element in _elements(_data_set(wanted), column) for value in _single(element)]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a header makes pydicom do, it is no verdict on the row
        raise _Unread from None


def _data_set(members: dict[str, Any]) -> Any:
    from pydicom.dataset import Dataset

    return Dataset.from_json(members, lambda *_: b"")  # a value that is referred to is none that a column can have


def _elements(data: Any, column: PromotedColumn) -> Iterator[Any]:
    """The elements of the last step; private ones by the block that their creator has reserved in their item."""
    items = [data]
    for place, step in enumerate(column.steps, start=1):
        found = []
        for item in items:
            if step.creator is None:
                tag: Any = int(step.key, 16)
            else:
                try:
                    tag = item.private_block(int(step.key[:4], 16), step.creator).get_tag(int(step.key[6:], 16))
                except KeyError:
                    continue
            if tag in item:
                found.append(item[tag])
        if place == len(column.steps):
            yield from found
        items = [inner for one in found if one.VR == "SQ" for inner in one.value]


def _single(element: Any) -> Sequence[Any]:
    from pydicom.multival import MultiValue

    if isinstance(element.value, MultiValue):
        return list(element.value)
    return [] if element.is_empty else [element.value]


def _value(vr: str, value: Any) -> Any:
    """One value as a column has it. Raises _Unread for one that is not what its VR demands."""
    if value is None or value == "":
        return None
    if vr in _TEXTS and isinstance(value, str):
        return value.strip(" \0\t\r\n") or None
    if vr == "PN":
        return str(getattr(value, "alphabetic", value)).strip() or None
    if vr in _NUMBERS and isinstance(value, int | float) and abs(value) < _LARGEST:
        return value
    if vr == "DA" and len(str(value)) == 8 and str(value).isdigit():
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            raise _Unread from None
    raise _Unread


PROMOTED_RULES: tuple[NamedRule, ...] = (
    NamedRule("flat_metadata", "promoted_equal_headers", "A sample of promoted columns = what headers say by pydicom",
              promoted_equal_headers),
)  # fmt: skip
"""Every rule of this module."""
