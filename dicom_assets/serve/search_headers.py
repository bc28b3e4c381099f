"""Attributes that no table has, taken from the headers of the studies or series that a search names.

Belongs here: reading those headers, and what they say as columns. Does not belong here: how a value is taken
(`dicom.from_header`), how it matches (`matching`).

A study or series says what the newest of its instances does that says anything, as its own columns do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.dicom.from_header import values_of
from dicom_assets.schema.attributes import TYPE_OF_VR, Level
from dicom_assets.schema.promoted import VALUED
from dicom_assets.serve.attribute_names import Attribute
from dicom_assets.serve.matching import Condition, condition
from dicom_assets.serve.newest import newest, path_to
from dicom_assets.serve.places import flat_source
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.search_query import Match
from dicom_assets.serve.served import Snapshot

MOST = 20_000
"""Headers that one search looks into."""

_ROWS = 512
_NEEDED = ("source", "batch_id", "object_id", "received_study_instance_uid")


@dataclass(frozen=True)
class Headers:
    """What headers say of some attributes.

    table: UIDs of each row, and a column for each attribute, `told0`, … elements: by UIDs and tag, the element at the
    top of a header that has the attribute.
    """

    attributes: Sequence[Attribute] = ()
    table: pa.Table | None = None
    elements: Mapping[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)

    def conditions(self, matches: Sequence[Match], fuzzy: bool) -> Iterator[Condition]:
        """What the columns of `table` must be. Raises Refusal."""
        for one in matches:
            at = one.attribute
            if at.column is None:
                column = f"told{self.attributes.index(at)}"
                made = condition(column, at.vr, one.texts, at.name, multiple=at.multiple, fuzzy=fuzzy)
                if made is not None:
                    yield made


def read_headers(
    snapshot: Snapshot, level: Level, uids: Mapping[Level, Sequence[str]], attributes: Sequence[Attribute]
) -> Headers:
    """What the headers in some studies or series say of attributes, for each row of a level. Raises Refusal."""
    different = list(dict.fromkeys(attributes))
    path = path_to(level)
    values: dict[tuple[str, ...], list[Any]] = {}
    elements: dict[tuple[str, ...], dict[str, Any]] = {}
    columns = [one for one in different if one.vr in VALUED]
    for rows, headers in _headers(snapshot, uids):
        taken = [array.to_pylist() for array in values_of(headers, [one.as_promoted() for one in columns])]
        for at, row in enumerate(rows):
            key = tuple(row[name] for name in path)
            known = values.setdefault(key, [None] * len(different))
            for one, column in zip(columns, taken, strict=True):
                place = different.index(one)
                known[place] = column[at] if known[place] is None else known[place]
            _keep(elements.setdefault(key, {}), headers[at], different)
    table = {name: pa.array([key[at] for key in values], pa.string()) for at, name in enumerate(path)}
    for at, one in enumerate(different):
        kind = TYPE_OF_VR.get(one.vr, pa.string())
        found = [known[at] for known in values.values()]
        table[f"told{at}"] = pa.array(found, pa.list_(kind) if one.multiple else kind)
    return Headers(different, pa.table(table), elements)


def _keep(elements: dict[str, Any], header: pa.Scalar, attributes: Sequence[Attribute]) -> None:
    """Keeps the elements of a header that nothing newer has."""
    wanted = [one.key for one in attributes if one.key not in elements]
    text = header.as_py() if wanted else None
    if text is None or not any(f'"{key}"' in text for key in wanted):
        return
    parsed = orjson.loads(text)
    for key in wanted:
        element = parsed.get(key)
        if element and "Value" in element:
            elements[key] = element


def _headers(
    snapshot: Snapshot, uids: Mapping[Level, Sequence[str]]
) -> Iterator[tuple[list[dict[str, Any]], pa.Array]]:
    """Headers with the rows of their instances, the newest first. Raises Refusal when there are too many."""
    instances = newest(snapshot, Level.INSTANCE, uids, columns=_NEEDED)
    names = (*path_to(Level.INSTANCE), *_NEEDED)
    with snapshot.cursor() as connection:
        found = connection.execute(
            f"SELECT {', '.join(names)} FROM {instances.sql} "
            f"ORDER BY version_at DESC, sequence DESC, object_id DESC LIMIT {MOST + 1}",
            list(instances.parameters),
        ).fetchall()
        rows = [dict(zip(names, row, strict=True)) for row in found]
        if len(rows) > MOST:
            raise Refusal(
                400, f"Only headers have an attribute that is asked for, and {MOST:,} at most are looked into."
            )
        if not rows:
            return
        order = {(row["batch_id"], row["object_id"]): at for at, row in enumerate(rows)}
        connection.register(
            "wanted",
            pa.table(
                {"batch_id": [b for b, _ in order], "object_id": [o for _, o in order], "place": [*order.values()]}
            ),
        )
        source = flat_source(snapshot, rows, {}, ("batch_id", "object_id", "operation", "header"))
        reader = connection.sql(
            "-- one row per header, the newest version first\n"
            f"SELECT place, header FROM {source} JOIN wanted USING (batch_id, object_id) "
            "WHERE operation = 'upsert' AND header IS NOT NULL ORDER BY place"
        ).to_arrow_reader(_ROWS)
        for batch in reader:
            yield [rows[at] for at in batch["place"].to_pylist()], batch["header"]
