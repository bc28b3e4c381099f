"""Promoting attributes: columns that users add, filled for what is there from `header`, without opening a file.

Belongs here: which columns may be added, filling one table after the other, taking a column away. Does not belong here:
what a path means (`schema.promoted`), taking a value (`dicom.from_header`), what is promoted (`lake.column_list`).

A file either has a column, and then all its values, or does not have it. So filling is writing those files anew that
do not, some at a time: a kill leaves files that have it and files that do not, and nobody sees the column before its
table's log has it, which comes last. Batches that run meanwhile write it themselves, or, when they began before, files
without it, which are looked for once more with the right to commit in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pyarrow as pa
from deltalake.exceptions import DeltaError

from dicom_assets.dicom.from_header import misfits
from dicom_assets.lake import column_list, table_form
from dicom_assets.lake.column_list import READY, REMOVING, Listed
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import GRAIN, told_by_instances
from dicom_assets.lake.query import arrow, scan
from dicom_assets.lake.rewrite import drop_column, rewrite_files
from dicom_assets.lake.studies import study_scope
from dicom_assets.printing import counted
from dicom_assets.schema.promoted import NotPromotable, PromotedColumn, promoted
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import ColumnSettings, Settings, UserError
from dicom_assets.storage import locks

LOCK = "columns"
FILES_AT_ONCE = 4
"""Files that are written anew in one commit."""

Tell = Callable[[str, int, int], None]
"""Is told of which table how many files are done, of how many."""

_HIERARCHY = ("flat_metadata", "instance", "series", "study")


class ColumnError(UserError):
    """A column cannot be added or removed; the message says why, and nothing was changed."""


@dataclass(frozen=True)
class Filled:
    """What filling a column did: rows by table, and values that are there and do not fit its type."""

    column: PromotedColumn
    rows: int
    misfits: int

    @property
    def sentence(self) -> str:
        """What was done."""
        misfits = f", and {counted(self.misfits, 'value')} not of its type left NULL" if self.misfits else ""
        return f"Column {self.column.name} is filled: {counted(self.rows, 'row')}{misfits}."


def column_of(settings: ColumnSettings) -> PromotedColumn:
    """The column that a section of the settings describes. Raises ColumnError."""
    try:
        return promoted(settings.path, name=settings.name, level=settings.level, vr=settings.vr)
    except NotPromotable as error:
        raise ColumnError(f"{error} Nothing was changed.") from None


def declare(lake: Lake, columns: Iterable[PromotedColumn]) -> list[PromotedColumn]:
    """Enters columns into the lake's list, to be filled; those that were not there. Raises ColumnError, LakeError.

    A column that is there with the same path and level stays as it is. Nothing is entered when one is refused.
    """
    wanted = [*columns]
    if not wanted:
        return []
    with locks.held(lake.files, LOCK, 60.0):
        lake.know_columns()
        fresh = [one for one in wanted if not _is_there(lake, one)]
        named = [one.name.lower() for one in fresh]
        twice = next((one.name for one in fresh if named.count(one.name.lower()) > 1), None)
        if twice is not None:
            raise ColumnError(f"Two columns are named {twice}. Give one another name. Nothing was changed.")
        if fresh:
            column_list.write(lake.files, [*lake.columns, *(Listed(one, "flat_metadata") for one in fresh)])
            lake.know_columns()
    return fresh


def require_new(lake: Lake, column: PromotedColumn) -> None:
    """Raises ColumnError for a column that is there and whole; one that is still being filled goes on. LakeError."""
    lake.know_columns()
    if _is_there(lake, column) and all(one.stage == READY for one in lake.columns):
        raise ColumnError(f"The lake has the promoted column {column.name} already. Nothing was changed.")


def _is_there(lake: Lake, column: PromotedColumn) -> bool:
    """Whether the lake has a column already. Raises ColumnError when another one has its name."""
    for one in lake.columns:
        if one.column.name.lower() == column.name.lower():
            if one.column == column and one.stage != REMOVING:
                return True
            raise ColumnError(
                f"The lake has a promoted column {one.column.name} already ({one.column.path}, level "
                f"{one.column.level}{', being removed' if one.stage == REMOVING else ''}). Give another name, or "
                "remove it first: `dicom-assets columns remove`. Nothing was changed."
            )
    for name in _HIERARCHY:
        for own in TABLES[name].columns:
            if own.name.lower() == column.name.lower():
                raise ColumnError(
                    f"Table {name} has a column {own.name} already. Give another name. Nothing was changed."
                )
    return False


def fill(lake: Lake, tell: Tell = lambda *_: None) -> list[Filled]:
    """Fills every column that is not whole yet, and takes those away that are to go. Raises LakeError.

    Killed at any moment, it goes on where it was when it is called again; of two at a time, one waits for the other.
    """
    done: list[Filled] = []
    with locks.held(lake.files, f"{LOCK}-fill", 3600.0):
        lake.know_columns()
        while (listed := next((one for one in lake.columns if one.stage != READY), None)) is not None:
            if listed.stage == REMOVING:
                _take_away(lake, listed, tell)
                continue
            rows = _fill_table(lake, listed, tell)
            whole = listed.next == READY
            count = _misfits(lake, listed.column) if whole else 0
            _enter(lake, replace(listed, stage=listed.next, misfits=count))
            if whole:
                done.append(Filled(listed.column, rows, count))
    return done


def _enter(lake: Lake, changed: Listed | None, name: str = "") -> None:
    """Replaces a column of the list, or takes it out. name: of the one to take out."""
    with locks.held(lake.files, LOCK, 60.0):
        gone = changed.column.name if changed else name
        now = [changed if changed and one.column.name == gone else one for one in column_list.read(lake.files)]
        column_list.write(lake.files, [one for one in now if changed or one.column.name != gone])
        lake.know_columns()


def _fill_table(lake: Lake, listed: Listed, tell: Tell) -> int:
    """Fills a column in the table of its stage, and shows it; rows of the table."""
    name, column = listed.stage, listed.column.name
    change = _from_above(lake, name, column) if name != "flat_metadata" else (lambda rows: rows)
    lacking = _lacking(lake, name, column)
    for start in range(0, len(lacking), FILES_AT_ONCE):
        tell(name, start, len(lacking))
        with lake.committing(name):
            rewrite_files(lake, name, lacking[start : start + FILES_AT_ONCE], change, data_change=False)
    with lake.committing(name):
        late = _lacking(lake, name, column)
        if late:
            rewrite_files(lake, name, late, change, data_change=False)
        table = lake.table(name)
        if column not in {field.name for field in table.schema().fields}:
            try:
                table_form.add_columns(table, [lake.tables[name].column(column)])
            except (DeltaError, OSError) as error:
                raise column_list.ColumnsChanged(
                    f"Table {name} cannot be given a column: {type(error).__name__}."
                ) from None
            lake.sync_log(name, lake.table(name).version())
        rows = lake.row_count(name)
    tell(name, len(lacking), len(lacking))
    return rows


def _lacking(lake: Lake, name: str, column: str) -> list[str]:
    """The files of a table that do not have a column; of each only its footer is read."""
    paths = [str(path) for path in lake.extents(name).paths]
    found: set[str] = set()
    for start in range(0, len(paths), 500):
        with lake.cursor() as connection:
            sql = lake.scan_footers(name, paths[start : start + 500])
            rows = connection.execute(f"SELECT DISTINCT file_name FROM {sql} WHERE name = $1", [column]).fetchall()
        found |= {str(path).rsplit("/", 1)[-1] for (path,) in rows}
    return [path for path in paths if path.rsplit("/", 1)[-1] not in found]


def _from_above(lake: Lake, name: str, column: str) -> Callable[[pa.Table], pa.Table]:
    """What gives rows of a table of the hierarchy their value of a column, from the table above."""
    grain = GRAIN[name]

    def change(rows: pa.Table) -> pa.Table:
        if not len(rows):
            return rows
        keys = rows["study_key"].unique().to_pylist()
        if name == "instance":
            within = {"batch_id": rows["batch_id"].unique().to_pylist()}
            above = f'SELECT batch_id, object_id, "{column}" FROM {scan(lake, "flat_metadata", within=within)}'
        else:
            within = dict(study_scope(lake, ["instance"], keys)["instance"])
            instances = f"SELECT * FROM {scan(lake, 'instance', within=within)} SEMI JOIN keys USING (study_key)"
            above = told_by_instances(name, [column], f"({instances})")
        with lake.cursor() as connection:
            connection.register("keys", pa.table({"study_key": pa.array(keys, pa.string())}))
            connection.register("written", rows.select(grain).append_column("place", pa.array(range(len(rows)))))
            found = arrow(
                connection,
                f'SELECT above."{column}" FROM written LEFT JOIN ({above}) AS above USING ({", ".join(grain)}) '
                "ORDER BY written.place",
            )
        at = rows.schema.get_field_index(column)
        return rows.set_column(at, rows.schema.field(at), found[column].cast(rows.schema.field(at).type))

    return change


def _misfits(lake: Lake, column: PromotedColumn) -> int:
    """In how many headers of flat_metadata a value is there that does not fit the column."""
    count = 0
    with lake.cursor() as connection:
        source = scan(lake, "flat_metadata")
        sql = f'SELECT header FROM {source} WHERE "{column.name}" IS NULL AND header IS NOT NULL'
        for batch in connection.sql(sql).to_arrow_reader(2_000):
            count += misfits(batch["header"], column)
    return count


def remove(lake: Lake, name: str, tell: Tell = lambda *_: None) -> None:
    """Takes a promoted column away, from every table that has it. Raises ColumnError, LakeError."""
    with locks.held(lake.files, LOCK, 60.0):
        lake.know_columns()
        listed = next((one for one in lake.columns if one.column.name == name), None)
        if listed is None:
            is_own = any(name in TABLES[table] for table in _HIERARCHY)
            raise ColumnError(
                f"{name} is a column of the registry, which every lake has; only promoted ones can be removed."
                if is_own
                else f"The lake has no promoted column {name}: see `dicom-assets columns list`. Nothing was changed."
            )
        marked = [replace(one, stage=REMOVING) if one.column.name == name else one for one in lake.columns]
        column_list.write(lake.files, marked)
        lake.know_columns()
    fill(lake, tell)


def _take_away(lake: Lake, listed: Listed, tell: Tell) -> None:
    """Writes the tables of a column anew without it, the lowest level first; each at once for whoever reads."""
    for number, name in enumerate(reversed(listed.way)):
        tell(name, number, len(listed.way))
        with lake.committing(name):
            drop_column(lake, name, listed.column.name)
    _enter(lake, None, listed.column.name)


def promote(lake: Lake, settings: Settings, tell: Tell = lambda *_: None) -> list[Filled]:
    """Enters the columns that the settings name, and fills what is not whole. Raises ColumnError, LakeError."""
    declare(lake, [column_of(one) for one in settings.columns])
    return fill(lake, tell) if any(one.stage != READY for one in lake.columns) else []
