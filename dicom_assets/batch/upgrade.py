"""Bringing a lake of an earlier release up to date: what would change, and doing it.

Belongs here: the order, what is told, and taking each migration that is done off the list. Does not belong here: adding
columns and tables, which every opening does by itself (`lake.tables`), what a migration does (`migrations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.migrations import MIGRATIONS
from dicom_assets.lake import form, table_form
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.tables import NoSuchVersion


@dataclass(frozen=True)
class Change:
    """One thing that an upgrade does. name: of the table or the migration. count: columns or things that change."""

    kind: str
    name: str
    count: int
    text: str


def plan(lake: Lake) -> list[Change]:
    """What bringing a lake up to date would change; empty when nothing would. Nothing is written. Raises LakeError."""
    changes = [*_additions(lake)]
    entered = form.entering(lake.form)
    for name in entered.left:
        migration = MIGRATIONS[name]
        changes.append(Change("migration", name, migration.find(lake), migration.text))
    if entered != lake.form:
        text = f"format {lake.form.number} becomes {entered.number}; earlier releases do not open the lake any more"
        changes.append(Change("lake", form.FILE, 1, text))
    return changes


def _additions(lake: Lake) -> Iterator[Change]:
    for name, table in lake.tables.items():
        try:
            found = pa.schema(lake.schema(name))
        except NoSuchVersion:
            yield Change("table", name, len(table.columns), f"made: one row per {table.grain}")
            continue
        missing = [column.name for column in table_form.differences(table, found).missing]
        if missing:
            yield Change("columns", name, len(missing), f"added, NULL in what is there: {', '.join(missing)}")
        comments = table_form.undescribed(table.columns, found)
        if comments:
            yield Change("comments", name, len(comments), "what each column holds, in the table's log alone")


def perform(work: RunContext, say: Callable[[str], None]) -> None:
    """Brings a lake up to date, for whoever holds the right to claim; a lake that is so stays as it is.

    work: one that migrates. Killed at any moment, it goes on where it was when it is called again. Raises LakeError.
    """
    lake = work.lake  # opening it has added columns and tables
    for name in lake.form.left:
        say(f"{name}: {MIGRATIONS[name].text}")

        def tell(done: int, of: int, name: str = name) -> None:
            say(f"{name}: {done} of {of}")

        MIGRATIONS[name].do(work, tell)
        lake.form = form.finish(lake.files, name)
