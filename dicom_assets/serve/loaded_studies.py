"""The table of studies held in memory, in the order of answers: what nearly every search begins with.

Belongs here: loading it, and following the lake's versions. Does not belong here: what is asked of it.

A list of studies costs a tenth of what it costs from Parquet, since rows in order need no sorting: the first that match
are the answer. Files of a table never change, so what was loaded holds for as long as the table has its files. Rows of
files that came since are read from these, until they are loaded as well, in the background and not too often.
"""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.query import scan
from dicom_assets.lake.quoting import named
from dicom_assets.storage.files import LakeError

MOST = 500_000
"""Studies up to which they are held, half a kilobyte each; of more, every search reads the files."""

AGAIN_SECONDS = 10.0
"""How often they are loaded anew at most while batches come."""

MOST_BEHIND = 50_000
"""Rows in files that are not loaded yet, above which they are loaded at once, since reading them costs what it did."""

ORDER = '"StudyDate" DESC NULLS LAST, "StudyInstanceUID"'
"""The order of answers."""

NEWEST = "version_at DESC, object_id DESC"
"""The order of the rows that several sources have of one study: the first one counts."""

ALL_MODALITIES = "list_sort(list_distinct(flatten(list(ModalitiesInStudy) OVER (PARTITION BY StudyInstanceUID))))"
"""Of all sources that have a study, instead of ModalitiesInStudy."""

_FILE, _IS_FIRST, _IS_SHARED, _MODALITIES = "loaded_from", "loaded_first", "loaded_shared", "loaded_modalities"
_OWN = f"{_FILE}, {_IS_FIRST}, {_IS_SHARED}, {_MODALITIES}"
"""Columns beside the table's: the number of the file; whether the row is the first of its study and whether there are
others; the modalities of all of them."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """One state of the table in memory; dropped when nobody holds it any more.

    name: of the table in DuckDB. paths: the files that it was loaded from, each with its number in the column
    `loaded_from`. columns: those that it has. order: of the rows that several sources have of one study.
    """

    name: str
    paths: dict[str, int]
    columns: tuple[str, ...]
    order: str = NEWEST

    def is_whole(self, known: Extents) -> bool:
        """Whether it has the rows of a version and no others."""
        return self.paths.keys() == set(known.paths.tolist())

    def source(self, lake: Lake, known: Extents, *, is_named: bool = False) -> str:
        """SQL that stands for a version of the table, for a FROM clause.

        is_named: whether columns are taken by their names alone, so that nobody sees those beside the table's.
        """
        held, added = self._parts(lake, known)
        if is_named and added is None:
            return held
        sql = f"SELECT * EXCLUDE ({_OWN}) FROM {held}"
        return f"({sql} UNION ALL BY NAME SELECT * FROM {added})" if added else f"({sql})"

    def firsts(self, columns: Iterable[str] | None = None) -> str:
        """SQL that stands for the newest row of each study, of what is held, in order. columns: None for all."""
        modalities = f"coalesce({_MODALITIES}, ModalitiesInStudy) AS ModalitiesInStudy"
        if columns is None:
            given = f"* EXCLUDE ({_OWN}) REPLACE ({modalities})"
        else:
            given = ", ".join(modalities if one == "ModalitiesInStudy" else named(one) for one in columns)
        return f"(SELECT {given} FROM {self.name} WHERE {_IS_FIRST})"

    def newest(self, lake: Lake, known: Extents, terms: Sequence[str]) -> str:
        """The same of those rows of a version for which some SQL holds, in no order.

        Only rows that may share their study with others are compared.
        """
        held, added = self._parts(lake, known)
        where = " AND ".join(terms) or "true"
        more = f" OR StudyInstanceUID IN (SELECT StudyInstanceUID FROM {added})" if added else ""
        seen = f"SELECT * EXCLUDE ({_OWN}), {_IS_SHARED}{more} AS {_IS_SHARED} FROM {held} WHERE {where}"
        if added:
            seen += f" UNION ALL BY NAME SELECT *, true AS {_IS_SHARED} FROM {added} WHERE {where}"
        return (
            f"(WITH seen AS NOT MATERIALIZED ({seen}) "
            f"SELECT * EXCLUDE ({_IS_SHARED}) FROM seen WHERE NOT {_IS_SHARED} UNION ALL BY NAME "
            f"SELECT * EXCLUDE ({_IS_SHARED}) REPLACE ({ALL_MODALITIES} AS ModalitiesInStudy) FROM seen "
            f"WHERE {_IS_SHARED} QUALIFY row_number() OVER (PARTITION BY StudyInstanceUID ORDER BY {self.order}) = 1)"
        )

    def _parts(self, lake: Lake, known: Extents) -> tuple[str, str | None]:
        """SQL for what is held of a version, and for the files that came since."""
        there = set(known.paths.tolist())
        gone = [number for path, number in self.paths.items() if path not in there]
        added = sorted(there - self.paths.keys())
        held = self.name
        if gone:
            held = f"(SELECT * FROM {held} WHERE {_FILE} NOT IN ({', '.join(map(str, gone))}))"
        return held, scan(lake, "study", paths=added) if added else None


_ALONE = f"true AS {_IS_FIRST}, false AS {_IS_SHARED}, NULL::VARCHAR[] AS {_MODALITIES}"
_COMPARED = (
    f"row_number() OVER (PARTITION BY StudyInstanceUID ORDER BY {{order}}) = 1 AS {_IS_FIRST}, "
    f"count(*) OVER (PARTITION BY StudyInstanceUID) > 1 AS {_IS_SHARED}, {ALL_MODALITIES} AS {_MODALITIES}"
)


class LoadedStudies:
    """The table of studies of one lake, in memory."""

    def __init__(self, lake: Lake, most: int = MOST, order: str = NEWEST) -> None:
        """most: studies up to which they are held. order: of the rows that several sources have of one study."""
        self._lake, self._most, self._order = lake, most, order
        self._loaded: Loaded | None = None
        self._loading = threading.Lock()
        self._loaded_at = 0.0

    def look(self, known: Extents) -> Loaded | None:
        """What is held that a version can be answered from; None when it has to be read. Raises LakeError.

        Only the first call waits for the rows; what is too far behind is loaded in the background like everything else.
        """
        if int(known.rows.sum()) > self._most:
            self._loaded = None
            return None
        held = self._loaded
        if held is None:
            with self._loading:
                held = self._loaded = self._loaded or self._load(known)
            return held
        fits = held.columns == self._columns()
        if not (fits and held.is_whole(known)):
            is_urgent = not fits or self._behind(held, known) > MOST_BEHIND
            if is_urgent or time.monotonic() - self._loaded_at > AGAIN_SECONDS:
                threading.Thread(target=self._load_behind, args=(known,), daemon=True).start()
        return held if fits else None

    def _columns(self) -> tuple[str, ...]:
        return tuple(self._lake.tables["study"].schema.names)

    def _behind(self, held: Loaded, known: Extents) -> int:
        return sum(
            int(rows)
            for path, rows in zip(known.paths.tolist(), known.rows.tolist(), strict=True)
            if path not in held.paths
        )

    def _load_behind(self, known: Extents) -> None:
        if self._loading.acquire(blocking=False):
            try:
                self._loaded = self._load(known)
            except (duckdb.Error, LakeError):  # a file has gone meanwhile, or memory is short: what is held stays
                self._loaded_at = time.monotonic()
            finally:
                self._loading.release()

    def _load(self, known: Extents) -> Loaded:
        self._loaded_at = time.monotonic()
        paths = {path: number for number, path in enumerate(known.paths.tolist())}
        columns = self._columns()
        table = Loaded(f"loaded_studies_{uuid.uuid4().hex}", paths, columns, self._order)
        compared = _COMPARED.format(order=self._order)
        listed = ", ".join(map(named, columns))
        files = scan(self._lake, "study", paths=[*paths], filename=True)
        with self._lake.cursor() as connection:
            (sources,) = connection.execute(f"SELECT count(DISTINCT source) FROM {files}").fetchall()[0]
            connection.execute(
                f"CREATE TABLE {table.name} AS SELECT {listed}, {_FILE}, {compared if sources > 1 else _ALONE} "
                f"FROM {files} JOIN (SELECT unnest(?::VARCHAR[]) AS file, unnest(?::INTEGER[]) AS {_FILE}) "
                f"ON file = parse_filename(filename) ORDER BY {ORDER}",
                [[path.rsplit("/", 1)[-1] for path in paths], [*paths.values()]],
            )
        weakref.finalize(table, _drop, self._lake, table.name).atexit = False
        return table


def _drop(lake: Lake, name: str) -> None:
    with lake.cursor() as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
