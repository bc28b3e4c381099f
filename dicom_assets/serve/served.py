"""The lake as requests see it: one version of each table for the whole of a request, looked for anew every second.

Belongs here: opening the lake for reading, versions, DuckDB connections and the threads in which they are asked. Does
not belong here: what is asked (`searching`, `metadata`, `objects`), who may see it (`access`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import duckdb

from dicom_assets.lake.choice import Choice
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents, Within
from dicom_assets.lake.query import existing, scan
from dicom_assets.lake.quoting import named, one_of
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore
from dicom_assets.serve.loaded_studies import MOST, NEWEST, Loaded, LoadedStudies
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.questions import Questions
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError

T = TypeVar("T")

TABLES = ("study", "series", "instance", "flat_metadata", "raw_files", "batch_study")
"""The tables that answers are made from."""

MEMORY_MB = 160
"""What DuckDB takes at most, the table of studies included; what is more, such as for sorting it, goes to the disk."""

MEMORY_STUDIES = 200_000
"""Held studies up to which that is enough; of each thousand more it takes half a megabyte more."""

LOOK_SECONDS = 1.0
"""A closed batch is seen after at most so long, and what one look costs."""


@dataclass(frozen=True)
class Scope:
    """What somebody may see: sources (None: all), and a condition over the columns of `study`, in SQL.

    condition: written by whoever runs the server, never by a client.
    """

    sources: tuple[str, ...] | None = None
    condition: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One version of each table, as far as a scope lets it be seen.

    A Snapshot is what answers are made from: there is no other way to a row, so none can forget the scope.
    """

    lake: Lake
    extents: Mapping[str, Extents]
    sources: tuple[str, ...] = ()
    questions: Questions = field(default_factory=Questions)
    studies: Loaded | None = None
    scope: Scope = field(default_factory=Scope)
    order: str = NEWEST
    """Of the rows that several sources have of one study or series, of which the first counts."""

    @property
    def seen(self) -> tuple[str, ...]:
        """The sources that have studies here and may be seen, in order."""
        allowed = self.scope.sources
        return tuple(one for one in self.sources if allowed is None or one in allowed)

    def versions(self, *names: str) -> tuple[int, ...]:
        """The versions of some tables, as far as the lake has these."""
        return tuple(self.extents[name].version for name in names if name in self.extents)

    def within(self, scope: Scope) -> Snapshot:
        """The same versions as somebody else may see them."""
        return replace(self, scope=scope)

    def beside(self, tables: Iterable[str]) -> Snapshot:
        """The same with further tables, as they are now; one that the lake does not have is left out. Blocks."""
        wanted = [one for one in tables if one in self.lake.tables and one not in self.extents]
        if not wanted:
            return self
        found = dict(self.extents)
        with self.lake.look_once(wanted):
            for name in wanted:
                with suppress(NoSuchVersion):
                    found[name] = self.lake.extents(name)
        return replace(self, extents=found)

    def scan(self, name: str, within: Within | None = None, columns: Iterable[str] | None = None) -> str:
        """SQL that stands for what may be seen of a table, for a FROM clause, its rows as the table has them.

        within: values by column: only files that can hold them are opened, and only such rows are given. columns: those
        that are given, None for all: a hundred of them cost DuckDB milliseconds even where nobody reads them.
        """
        terms = [f"{named(column)} IN ({one_of(values)})" for column, values in (within or {}).items()]
        terms += self._terms(name)
        source = self._held(name, is_named=columns is not None) or self._files(name, within)
        if columns is None and not terms:
            return source
        given = "*" if columns is None else ", ".join(map(named, columns))
        return f"(SELECT {given} FROM {source} WHERE {' AND '.join(terms or ['true'])})"

    @property
    def is_in_order(self) -> bool:
        """Whether studies come in the order of `loaded_studies`, one row of each, without being told to be sorted."""
        if self.studies is None or not self.studies.is_whole(self.extents["study"]):
            return False
        return len(self.seen) < 2 or self._sees_all

    @property
    def _sees_all(self) -> bool:
        return self.scope.condition is None and self.seen == self.sources

    def newest_studies(self, columns: Iterable[str] | None = None) -> str | None:
        """SQL that stands for the newest row of each study that may be seen, where what is held tells which.

        ModalitiesInStudy are those of all sources. columns: that are needed, None for all.
        """
        known = self.extents["study"]
        if self.studies is None:
            return None
        if self._sees_all and self.studies.is_whole(known):
            return self.studies.firsts(columns)
        return self.studies.newest(self.lake, known, self._terms("study"))

    def _held(self, name: str, *, is_named: bool = False) -> str | None:
        """SQL that stands for what is held of a table; is_named as `Loaded.source` has it."""
        if name != "study" or self.studies is None:
            return None
        return self.studies.source(self.lake, self.extents[name], is_named=is_named)

    def _files(self, name: str, within: Within | None) -> str:
        """SQL that stands for the files of a table that can hold some values."""
        found = self.extents[name]
        key = self.lake.tables[name].replaced_by
        if within is not None and key in within and key != "batch_id":
            paths = sorted({path for own in self.lake.file_keys.homes(name, found, within).values() for path in own})
        else:
            paths = (found.paths if within is None else found.paths[found.within(within)]).tolist()
        return scan(self.lake, name, paths=paths)

    def _terms(self, name: str) -> list[str]:
        """SQL that holds for the rows of a table that may be seen."""
        columns = self.lake.tables[name].schema.names
        terms = []
        if self.scope.sources is not None:
            is_told = "source" in columns  # otherwise nobody can say whose the rows are
            terms.append(f"source IN ({one_of(self.scope.sources)})" if is_told else "false")
        if self.scope.condition is not None:
            if "study_key" not in columns:
                return [*terms, "false"]
            if name == "study":
                terms.append(f"({self.scope.condition})")
            else:
                study = self._held("study") or self._files("study", None)
                terms.append(f"study_key IN (SELECT study_key FROM {study} WHERE ({self.scope.condition}))")
        return terms

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one question, closed behind it. Raises questions.Stopped when nobody waits any more."""
        with self.questions.using(self.lake.cursor()) as connection:
            yield connection


class ServedLake:
    """The lake that one process serves, with the stores in which its objects lie.

    Raises LakeError, at the start, when there is no lake; while serving, a lake that is gone is a Refusal (503).
    """

    def __init__(self, settings: Settings) -> None:
        """Opens the lake for reading; it must be there."""
        self.settings = settings
        self.questions = Questions(settings.serve.query_seconds)
        self._lake = existing(settings.lake)
        self._order = Choice.of(settings.curation).newest_row(NEWEST)
        self._memory_mb = 0
        self._looking = threading.Lock()
        self._studies = LoadedStudies(self._lake, order=self._order)
        self._snapshot = self._look(None)
        self._looked_at = time.monotonic()
        self._stores: dict[str, LandingStore] = {}
        self._parts: dict[Callable[[], object], object] = {}

    def snapshot(self) -> Snapshot:
        """The newest versions, at most LOOK_SECONDS old. Raises Refusal. Blocks while it looks."""
        if self._is_old():
            with self._looking:
                if self._is_old():  # whoever came meanwhile has waited for the same look
                    try:
                        self._snapshot = self._look(self._snapshot)
                    except (LakeError, duckdb.IOException, duckdb.InvalidInputException):
                        raise Refusal(503, "The lake cannot be read at the moment.", {"Retry-After": "10"}) from None
                    self._looked_at = time.monotonic()
        return self._snapshot

    def _is_old(self) -> bool:
        return time.monotonic() - self._looked_at >= LOOK_SECONDS

    def _look(self, before: Snapshot | None) -> Snapshot:
        lake = self._lake
        with lake.look_once(TABLES):
            found = {name: lake.extents(name) for name in TABLES}
            if before is not None and all(found[name] is before.extents[name] for name in TABLES):
                return before
            for name in TABLES:
                lake.keep_up_with_columns(name)
            self._limit_memory(int(found["study"].rows.sum()))
            loaded = self._studies.look(found["study"])
        snapshot = Snapshot(lake, found, (), self.questions, loaded, order=self._order)
        return replace(snapshot, sources=self._sources(snapshot))

    def _limit_memory(self, studies: int) -> None:
        """What DuckDB does not find room for, it puts where the lake's own database puts it."""
        megabytes = MEMORY_MB + max(min(studies, MOST) - MEMORY_STUDIES, 0) // 2_000
        if megabytes != self._memory_mb:
            self._memory_mb = megabytes
            with self._lake.cursor() as connection:
                connection.execute(f"SET memory_limit = '{megabytes}MB'")

    def _sources(self, snapshot: Snapshot) -> tuple[str, ...]:
        """The sources that have studies."""
        with self._lake.cursor() as connection:
            found = connection.execute(f"SELECT DISTINCT source FROM {snapshot.scan('study')}").fetchall()
        return tuple(sorted(name for (name,) in found))

    def store(self, source: str) -> LandingStore:
        """The store of a source, by the name that rows have (with a partition behind it). Raises Refusal (503)."""
        name = source.partition("/")[0]
        if name not in self._stores:
            configured = next((one for one in self.settings.sources if one.name == name), None)
            if configured is None:
                raise Refusal(503, "The source of this object is not configured here, so its bytes cannot be read.")
            self._stores[name] = open_store(configured)
        return self._stores[name]

    def part(self, kind: Callable[[], T]) -> T:
        """What one kind of answer keeps for as long as this lake is served; made when it is first asked for."""
        if kind not in self._parts:
            self._parts.setdefault(kind, kind())  # of several threads that make one, all get the first
        return cast(T, self._parts[kind])

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks; see `Questions.ask`. Raises Refusal (503)."""
        return await self.questions.ask(question)

    async def ask_for_body(self, question: Callable[[], T]) -> T:
        """As `ask`, for what a large answer is made from: it takes turns apart from searches. Raises Refusal (503)."""
        return await self.questions.ask_for_body(question)
