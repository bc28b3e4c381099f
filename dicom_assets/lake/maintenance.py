"""Keeping the tables quick: small files into larger ones, and old versions away.

Belongs here: which files are worth merging, vacuum, both safe beside running batches. Does not belong here: how files
are swapped (`rewrite`), and when maintenance happens.

Two layouts. A table that is replaced by batch keeps its files in the order of the batches: neighbours are merged as
they pile up, so each file holds a narrow range of batch_id. A table that is replaced by study is a tree over the hash
study_key with eight branches a node: files fall in at the root, where they span all studies, and are handed down a
level when a node is full, until they reach a leaf, whose rows are sorted anew when too many files overlap there. A leaf
has room for dozens of files: rows move down few levels, and most files hold a range of studies that no other holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.positions import POSITION, STUDY_KEY, add_positions
from dicom_assets.lake.rewrite import Merge, file_rows, leaf_rows, merge_batches, merge_studies
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError

BATCH_FILE_ROWS = 262_144
BATCH_FILE_BYTES = 96 * 2**20
"""Upper bounds of a merged file of a table that is replaced by batch: what a rerun of an old batch rewrites."""

NEIGHBOURS = 16
"""Small neighbours that are worth a merge."""

STRAYS = 64
"""Small files anywhere that are worth a merge."""

FULL_NODE = 4
"""Files' worth of rows of a node of the tree at which they are handed down a level."""

CROWDED_NODE = 24
"""Files of a node at which they are merged, however small."""

OVERLAPPING = 8
"""Files that a leaf may have, beyond half as many again as its rows need, before it is sorted anew."""

ORPHAN_HOURS = 24
"""Age from which a file that no version names is taken for the remains of a killed writer."""

_BITS, _KEY_BITS = 3, 64


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What maintenance did to one table.

    bytes: of the newest version. oldest: back to when the table can be read as it was.
    """

    table: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    files_deleted: int
    oldest: datetime


def tidy(lake: Lake, name: str, at_most: int = 1) -> int:
    """Merges files of a table where that is worth while, at most so many times; how many times.

    Each merge holds the right to commit to the table for about a second. Raises LakeError.
    """
    table = TABLES[name]
    if table.replaced_by != "batch_id":
        lake.file_keys.keep(name, lake.extents(name))
    for done in range(at_most):
        if not _worth_while(name, lake.extents(name)):
            return done
        with lake.committing(name):
            if table.replaced_by == "batch_id":
                merged = merge_batches(lake, name, neighbours)
            else:
                merged = merge_studies(
                    lake, name, partial(tree_merge, rows_of_file=file_rows(name), rows_of_leaf=leaf_rows(name))
                )
        if not merged:
            return done
    return at_most


def _worth_while(name: str, now: Extents) -> bool:
    if TABLES[name].replaced_by == "batch_id":
        return bool(neighbours(now))
    return tree_merge(add_positions(name, now), file_rows(name), leaf_rows(name)) is not None


def neighbours(now: Extents) -> list[npt.NDArray[np.int64]]:
    """Files of a table that is replaced by batch, by the file that they are to become; empty when nothing is worth it.

    Sizes fall into tiers, and files of one tier wait for enough neighbours, so that a row is rewritten once a tier.
    """
    low = now.low.get("batch_id", np.full(len(now), "", dtype=object))
    order = np.argsort(np.array([value or "" for value in low], dtype=object), kind="stable")
    share = np.maximum(now.rows / BATCH_FILE_ROWS, now.bytes / BATCH_FILE_BYTES)
    for tier in (1 / 64, 1 / 8):
        small = order[share[order] <= tier]
        for run in _runs(order, share <= tier):
            if len(run) >= NEIGHBOURS:
                return _filled(run, share)
        if len(small) >= STRAYS:
            return _filled(small, share)
    for run in _runs(order, share <= 1 / 2):
        if share[run].sum() >= 1:
            return _filled(run, share)
    return []


def _runs(order: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.int64]]:
    """Runs of neighbours that are wanted."""
    flags = np.concatenate([[False], wanted[order], [False]])
    edges = np.flatnonzero(flags[1:] != flags[:-1])
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield order[start:end]


def _filled(run: npt.NDArray[np.int64], share: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int64]]:
    """Cuts a run into groups that fill a file each."""
    groups: list[npt.NDArray[np.int64]] = []
    start, held = 0, 0.0
    for at, index in enumerate(run):
        if held and held + share[index] > 1:
            groups.append(run[start:at])
            start, held = at, 0.0
        held += float(share[index])
    groups.append(run[start:])
    return [group for group in groups if len(group) > 1]


def tree_merge(now: Extents, rows_of_file: int, rows_of_leaf: int) -> Merge | None:
    """The next merge of a table that is replaced by study; None when no node is full.

    The tree is as deep as its rows need. Rows of an inner node are handed down to its branches; those of a leaf are
    sorted anew.
    """
    column = next((name for name in (POSITION, STUDY_KEY) if name in now.low), None)
    if column is None or len(now) < 2:
        return None
    depth_of_leaves = 0
    while now.rows.sum() > rows_of_leaf * 8**depth_of_leaves:
        depth_of_leaves += 1
    nodes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (low, high) in enumerate(zip(now.low[column], now.high[column], strict=True)):
        nodes[_node(low, high, depth_of_leaves)].append(index)
    for (depth, prefix), files in sorted(nodes.items()):
        rows = int(now.rows[files].sum())
        if depth < depth_of_leaves:
            full = len(files) > 1 and (rows >= FULL_NODE * rows_of_file or len(files) > CROWDED_NODE)
            if full and rows >= rows_of_file:
                return Merge(np.array(files), _branches(depth, prefix))
            if full:
                return Merge(np.array(files))
        elif len(files) > 1.5 * -(-rows // rows_of_file) + OVERLAPPING:
            return Merge(np.array(files))
    return None


def _node(low: str | None, high: str | None, deepest: int) -> tuple[int, int]:
    """The deepest node whose range holds a file: depth and prefix. A file that says nothing is at the root."""
    try:
        first, last = int(low or "x", 16), int(high or "x", 16)
    except ValueError:
        return 0, 0
    common = _KEY_BITS - (first ^ last).bit_length()
    depth = max(0, min(deepest, common // _BITS))
    return depth, first >> (_KEY_BITS - _BITS * depth)


def _branches(depth: int, prefix: int) -> list[str]:
    """The smallest study_key of each branch of a node but the first."""
    shift = _KEY_BITS - _BITS * (depth + 1)
    return [f"{((prefix << _BITS) | branch) << shift:016x}" for branch in range(1, 2**_BITS)]


def tidy_all(lake: Lake) -> None:
    """Merges files of every table where that is worth while; what fails is left for the next time."""
    for name in TABLES:
        with suppress(LakeError):
            tidy(lake, name)


def maintain(lake: Lake, name: str, retention_hours: int) -> Maintenance:
    """Merges what is worth merging, and deletes files that no version within the retention names. Raises LakeError.

    A batch that reads an older version while files are deleted is safe as long as it is younger than the retention.
    """
    before = lake.extents(name)
    tidy(lake, name, at_most=10_000)
    with lake.committing(name):
        table = lake.table(name)
        try:
            deleted = _vacuum(table, retention_hours)
            table.create_checkpoint()
            lake.sync_log(name, table.version(), checkpoint=True)  # before what it stands for goes
            table.cleanup_metadata()
        except (CommitFailedError, DeltaError, OSError) as error:
            raise LakeError(f"Table {name} cannot be maintained: {type(error).__name__}. Try again later.") from None
    after = lake.extents(name)
    return Maintenance(
        name,
        len(before),
        len(after),
        int(before.bytes.sum()),
        int(after.bytes.sum()),
        deleted,
        _oldest(table, retention_hours),
    )


def _vacuum(table: DeltaTable, retention_hours: int) -> int:
    """Deletes replaced files, and older ones that killed writers have left; how many."""
    gone = table.vacuum(retention_hours=retention_hours, dry_run=False, enforce_retention_duration=False)
    orphans = table.vacuum(
        retention_hours=max(retention_hours, ORPHAN_HOURS), dry_run=False, enforce_retention_duration=False, full=True
    )
    return len(gone) + len(orphans)


def _oldest(table: DeltaTable, retention_hours: int) -> datetime:
    """Back to when versions of a table are readable: its making, or the retention ago."""
    made = datetime.fromtimestamp((table.metadata().created_time or 0) / 1000, UTC)
    return max(made, datetime.now(UTC) - timedelta(hours=retention_hours))
