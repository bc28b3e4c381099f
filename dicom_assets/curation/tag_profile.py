"""tag_profile: what the objects of each device and software have in their headers, added up from what each batch has.

Belongs here: which batches are to be counted, their parts, and adding up. Does not belong here: counting headers
(`tag_counts`), which objects are current (`closed_batches`).

A batch's part is replaced in one commit that says what was counted (`mark`); what is added up says which parts it was
made from. Either is compared with what is there now, so a kill at any moment leaves nothing that the next run would not
see, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dicom_assets.curation.closed_batches import CLOSED, FORM, ClosedBatches
from dicom_assets.curation.marks import Marker, distinct_sql, merged_sql
from dicom_assets.curation.tag_counts import TagCounts
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import object_rows
from dicom_assets.lake.query import arrow, connect, scan
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.schema.keys import profile_key
from dicom_assets.schema.tag_tables import TAG_PROFILE, TAG_PROFILE_PART

PARTS_AT_ONCE = 40_000
"""Rows of parts that are committed together; also what a run that is killed counts again at most, besides a batch."""
BATCHES_AT_ONCE = 100
"""Batches whose current objects are in memory together."""
PROFILES_AT_ONCE = 500

_GROUP = ("source", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "Modality")
_READ = ("batch_id", *_GROUP, "ingested_at", "header")


def mark_of(marker: Marker, made_from: str) -> str:
    """What a part of a batch says that was counted from these objects: their run, number and sum, form and key."""
    return f"{made_from} {FORM}-{marker.name}"


def count_batches(lake: Lake, now: ClosedBatches, marker: Marker) -> int:
    """Counts the batches that were not counted, or of which other objects are current now; how many.

    A batch that changes meanwhile is left to the next run. Raises LakeError.
    """
    wanted = {row["batch_id"]: row for row in now.batches().to_pylist()}
    marks = {batch: mark_of(marker, row["made_from"]) for batch, row in wanted.items()}
    known = counted_marks(lake)
    stale = sorted(batch for batch, mark in marks.items() if known.get(batch) != mark)
    done = 0
    for at in range(0, len(stale), BATCHES_AT_ONCE):
        some = {batch: wanted[batch]["objects"] for batch in stale[at : at + BATCHES_AT_ONCE]}
        for parts in _together(_parts(lake, now, marker, some)):
            rows = [row | {"mark": marks[row["batch_id"]]} for part in parts.values() for row in part]
            _replace(lake, list(parts), rows)
            done += len(parts)
    gone = sorted({*known} - {*marks})
    if gone:
        _replace(lake, gone, [])
    return done


def counted_marks(lake: Lake) -> dict[str, str]:
    """What the part of each batch says that was counted. Raises LakeError."""
    with connect(lake, [TAG_PROFILE_PART.name]) as connection:
        return dict(connection.execute(f"SELECT DISTINCT batch_id, mark FROM {TAG_PROFILE_PART.name}").fetchall())


def _replace(lake: Lake, batches: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with lake.committing(TAG_PROFILE_PART.name):
        table = pa.Table.from_pylist([*rows], schema=TAG_PROFILE_PART.schema)
        lake.replace(TAG_PROFILE_PART.name, batches, table)


_Part = list[dict[str, Any]]


def _together(parts: Iterable[tuple[str, _Part]]) -> Iterator[dict[str, _Part]]:
    """Parts of batches that are committed together."""
    held: dict[str, _Part] = {}
    for batch, part in parts:
        held[batch] = part
        if sum(map(len, held.values())) >= PARTS_AT_ONCE:
            yield held
            held = {}
    if held:
        yield held


def _parts(lake: Lake, now: ClosedBatches, marker: Marker, batches: Mapping[str, int]) -> Iterator[tuple[str, _Part]]:
    """The part of each batch. batches: with the number of their current objects."""
    for batch, objects in batches.items():
        if not objects:
            yield batch, [_nothing(batch)]
    objects = now.objects("batch_id IN (SELECT unnest($batches))", {"batches": [*batches]}).select(
        ["batch_id", "object_id"]
    )
    counts: dict[str, TagCounts] = {}
    left = dict(batches)
    named: dict[tuple[str | None, ...], str] = {}
    claimed: dict[str, Any] = {}
    for rows, _ in object_rows(lake, objects, _READ):
        for batch, own in _by_batch(rows):
            profiles = [_profile(named, row) for row in zip(*(_texts(own, name) for name in _GROUP), strict=True)]
            claimed[batch] = own["ingested_at"][0].as_py()
            counts.setdefault(batch, TagCounts(marker)).add(profiles, own["header"].fill_null("{}").to_pylist())
            left[batch] -= len(own)
            if not left[batch]:
                groups = {key: dict(zip(_GROUP, group, strict=True)) for group, key in named.items()}
                own_rows = counts.pop(batch).rows()
                yield (
                    batch,
                    [
                        {"batch_id": batch, "claimed_at": claimed[batch], **groups[row["profile_key"]], **row}
                        for row in own_rows
                    ],
                )


def _nothing(batch: str) -> dict[str, Any]:
    """What a batch has of which nothing is current."""
    zeros = dict.fromkeys(("objects", "present", "occurrences", "empty", "length_sum"), 0)
    return {"batch_id": batch, "profile_key": "", "path": "", **zeros}


def _by_batch(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rows cut where the batch changes."""
    batches = rows["batch_id"].to_pylist()
    begin = 0
    for at in range(1, len(batches) + 1):
        if at == len(batches) or batches[at] != batches[begin]:
            yield batches[begin], rows.slice(begin, at - begin)
            begin = at


def _texts(rows: pa.Table, name: str) -> list[str | None]:
    values = rows[name].to_pylist()
    return [("\\".join(v or "" for v in one) if isinstance(one, list) else one) or None for one in values]


def _profile(named: dict[tuple[str | None, ...], str], group: tuple[str | None, ...]) -> str:
    if group not in named:
        named[group] = profile_key(*group)
    return named[group]


_SUM_OF_PARTS = f"""
-- by profile, which parts it is added up from
SELECT profile_key, md5(string_agg(batch_id || mark, ' ' ORDER BY batch_id)) AS made_from
FROM (SELECT DISTINCT profile_key, batch_id, mark FROM {TAG_PROFILE_PART.name} WHERE profile_key <> '')
GROUP BY profile_key
"""

_STALE = f"""
-- profiles that are to be added up again, or taken away
SELECT coalesce(parts.profile_key, held.profile_key) AS profile_key
FROM ({_SUM_OF_PARTS}) AS parts
FULL JOIN (SELECT DISTINCT profile_key, made_from FROM {TAG_PROFILE.name}) AS held USING (profile_key)
WHERE parts.made_from IS DISTINCT FROM held.made_from
ORDER BY 1
"""

_ADDED_UP = f"""
-- one row per profile and path
WITH part AS (SELECT * FROM {TAG_PROFILE_PART.name} SEMI JOIN wanted USING (profile_key)),
objects AS (
    SELECT profile_key, sum(objects)::BIGINT AS objects
    FROM (SELECT DISTINCT profile_key, batch_id, objects FROM part) GROUP BY profile_key
),
counted AS (
    SELECT
        profile_key, path, {", ".join(f"any_value({name}) AS {name}" for name in _GROUP)},
        any_value(keyword) AS keyword, any_value(private_creator) AS private_creator,
        list_sort(list_distinct(flatten(list(vr)))) AS vr,
        sum(present)::BIGINT AS present, sum(occurrences)::BIGINT AS occurrences, sum(empty)::BIGINT AS empty,
        {merged_sql("value_marks")} AS marks,
        sum(length_sum) / nullif(sum(occurrences) - sum(empty), 0) AS length_typical,
        min(length_min) AS length_min, max(length_max) AS length_max,
        min(claimed_at) AS first_claimed_at, max(claimed_at) AS last_claimed_at
    FROM part GROUP BY profile_key, path
)
SELECT counted.* EXCLUDE (marks), objects.objects, {distinct_sql("marks")} AS distinct_values, sums.made_from
FROM counted JOIN objects USING (profile_key) JOIN ({_SUM_OF_PARTS}) AS sums USING (profile_key)
"""


def add_up(lake: Lake) -> int:
    """Adds the profiles up of which parts have changed; how many. Raises LakeError."""
    stale = stale_profiles(lake)
    names = [TAG_PROFILE_PART.name, TAG_PROFILE.name]
    for at in range(0, len(stale), PROFILES_AT_ONCE):
        some = stale[at : at + PROFILES_AT_ONCE]
        with lake.committing(TAG_PROFILE.name), connect(lake, names) as connection:
            connection.register("wanted", pa.table({"profile_key": pa.array(some, pa.string())}))
            rows = arrow(connection, _ADDED_UP).select(TAG_PROFILE.schema.names).cast(TAG_PROFILE.schema)
            lake.replace(TAG_PROFILE.name, some, rows)
    return len(stale)


def stale_profiles(lake: Lake) -> list[str]:
    """Profiles that are not the sum of their parts; none in a lake of an earlier release. Raises LakeError."""
    if not _is_there(lake):
        return []
    with connect(lake, [TAG_PROFILE_PART.name, TAG_PROFILE.name]) as connection:
        return [key for (key,) in connection.execute(_STALE).fetchall()]


def _is_there(lake: Lake) -> bool:
    """Whether the lake has these tables."""
    try:
        lake.extents(TAG_PROFILE_PART.name)
    except NoSuchVersion:
        return False
    return True


def lagging(lake: Lake) -> list[str]:
    """Closed batches that are not counted, or not as their last run has closed them. Raises LakeError.

    All of them in a lake of an earlier release, which nobody has opened for writing yet.
    """
    return _closed(lake, are_counted=False)


def taken_in(lake: Lake) -> list[str]:
    """The other closed batches. Raises LakeError."""
    return _closed(lake, are_counted=True)


def _closed(lake: Lake, *, are_counted: bool) -> list[str]:
    counted = "false"
    if _is_there(lake):
        counted = f"""
            EXISTS (FROM {scan(lake, TAG_PROFILE_PART.name)} AS part WHERE part.batch_id = batches.batch_id
                AND starts_with(mark, concat(coalesce(run_id, ''), '-')) AND contains(mark, ' {FORM}-'))
        """
    sql = f"""
        SELECT batch_id FROM {scan(lake, "batches")} AS batches
        WHERE status = '{CLOSED}' AND ({counted}) = {are_counted} ORDER BY batch_id
    """
    with lake.cursor() as connection:
        return [batch for (batch,) in connection.execute(sql).fetchall()]
