"""What a rule is: what it may look at, what it hands back, and comparing two queries.

Belongs here: what every module of rules needs. Does not belong here: any rule, Dagster (`defs.checks` makes asset
checks of rules), and what happens when a rule does not hold (`books.stop_batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.publish import touched_studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.file_answers import Ask, answer
from dicom_assets.lake.query import arrow, quoted, readable, scan, shown, where
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.lake.studies import study_scope
from dicom_assets.landing.claims import BatchKind, ClaimLog
from dicom_assets.schema.registry import Table
from dicom_assets.settings import GateSettings, OmopSettings, Settings

Found = TypeVar("Found")

SHOWN = 20
"""How many differing object_ids a result names."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one rule. differing: object_ids (or hashed keys), at most SHOWN, never patient data.

    is_severe: a rule that does not block is an error when it does not hold, and not just a warning. only_warns: a rule
    that blocks does not hold, and lets the batch go on all the same.
    """

    passed: bool
    expected: int | float | str
    actual: int | float | str
    differing: Sequence[str] = ()
    explanation: str = ""
    is_severe: bool = False
    only_warns: bool = False

    @property
    def stops(self) -> bool:
        """Whether a batch does not go on, if the rule is one that blocks."""
        return not self.passed and not self.only_warns


@dataclass(frozen=True)
class CheckContext:
    """What a rule may look at.

    log: the lake's claims, where whoever makes this has read them already. kind: why the batch was claimed.
    """

    lake: Lake
    staging: Staging
    gate: GateSettings = field(default_factory=GateSettings)
    omop: OmopSettings = field(default_factory=OmopSettings)
    settings: Settings = field(default_factory=Settings)
    log: ClaimLog | None = None
    kind: BatchKind = BatchKind.ARRIVAL
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _staged: dict[Part, pa.Table] = field(default_factory=dict, repr=False, compare=False)
    _finding: RLock = field(default_factory=RLock, repr=False, compare=False)
    """Held while something is found that several rules ask for, so that it is found once."""

    def staged(self, part: Part) -> pa.Table:
        """The staged rows of a part, in the columns that rules look at; read once for all rules of a table."""
        with self._finding:
            if part not in self._staged:
                columns = [name for name in SCHEMAS[part].names if name in _JUDGED_BY]
                self._staged[part] = self.staging.read_whole(part, columns)
            return self._staged[part]

    def once(self, name: str, find: Callable[[CheckContext], Found]) -> Found:
        """What a function finds, which several rules of a table ask for; found once."""
        with self._finding:
            if name not in self._found:
                self._found[name] = find(self)
            found: Found = self._found[name]
            return found

    def answer(self, sql: str, ask: Ask = arrow) -> pa.Table:
        """What SQL says over files of the lake alone, see `lake.file_answers`.

        Several rules ask the same of the rows of one batch, and its closing once more.
        """
        with self._finding:
            return answer(self.lake, self.staging, sql, ask)

    @property
    def batch(self) -> str:
        """The batch's id as a SQL literal."""
        return quoted(self.staging.batch_id)


Rule = Callable[[CheckContext], CheckResult]


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule with the table (asset) that it guards."""

    table: str
    name: str
    description: str
    rule: Rule
    blocking: bool = True


_JUDGED_BY = {"object_id", "outcome", "kind", "code", "stage", "severity", "issues"}
"""The staged columns that the rules look at."""


def staged_tables(context: CheckContext, *parts: Part) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with staged parts as tables `staged_{part}`, of the columns that rules look at."""
    connection = context.lake.cursor()
    for part in parts:
        connection.register(f"staged_{part}", context.staged(part))
    return connection


def compared(
    connection: duckdb.DuckDBPyConnection, expected: str, actual: str, shown: str = "object_id"
) -> CheckResult:
    """Holds when two queries give the same rows, each as often.

    shown: the column of both that names what differs; it is no patient data. One statement, so that each file is
    opened once: setting a statement up costs more than comparing some thousand rows.
    """
    wanted, got, differing = connection.execute(
        f"""
        WITH counted AS (
            SELECT
                * EXCLUDE (is_expected),
                count(*) FILTER (is_expected) AS times_expected,
                count(*) FILTER (NOT is_expected) AS times_there
            FROM (
                SELECT *, true AS is_expected FROM ({expected})
                UNION ALL
                SELECT *, false AS is_expected FROM ({actual})
            )
            GROUP BY ALL
        )
        SELECT
            coalesce(sum(times_expected), 0)::BIGINT,
            coalesce(sum(times_there), 0)::BIGINT,
            min(DISTINCT {shown}, {SHOWN}) FILTER (times_expected <> times_there)
        FROM counted
        """
    ).fetchall()[0]
    return CheckResult(not differing, wanted, got, [str(one) for one in differing or ()])


def studies_of(context: CheckContext) -> list[str]:
    """Keys of the studies that a batch touches."""
    studies: list[str] = touched_studies(context.staging)["study_key"].to_pylist()
    return studies


def moving(context: CheckContext, studies: Iterable[str]) -> pa.Table:
    """study_key of those of some studies that another batch touches which is not closed, so that rows may come and go.

    Whoever compares two tables asks this before looking at either.
    """
    closed = scan(context.lake, "batches")
    scope = {"study_key": sorted(set(studies))}
    with readable("batches", "batch_study"):
        return context.answer(
            f"SELECT DISTINCT study_key FROM {scan(context.lake, 'batch_study', within=scope)}{where(scope)} "
            f"AND batch_id <> {context.batch} "
            f"AND batch_id NOT IN (SELECT batch_id FROM {closed} WHERE status = 'closed')"
        )


def settled(context: CheckContext) -> pa.Table:
    """study_key of the touched studies that no other batch touches which is not closed, see `moving`.

    To be asked behind the tables that are compared, and these behind `batches`, all within one look: a batch stands in
    the index before any of its rows stand anywhere.
    """
    touched = touched_studies(context.staging)
    if not len(touched):
        return touched
    unsettled = moving(context, touched["study_key"].to_pylist())
    return touched.filter(pc.invert(pc.is_in(touched["study_key"], unsettled["study_key"].combine_chunks())))


def touched_rows(context: CheckContext, table: Table, columns: str = "") -> pa.Table:
    """The rows that a table that is replaced by study has of the touched studies.

    columns: SQL; the key, and what a result names rows by, when it is not given.
    """
    keys = dict.fromkeys([shown_column(table), "study_key", *table.key])
    scope = study_scope(context.lake, [table.name], studies_of(context))[table.name]
    listed = columns or ", ".join(f'"{column}"' for column in keys)
    source = scan(context.lake, table.name, within=scope)
    return context.answer(f"SELECT {listed} FROM {source}{where(scope)}")


def own_rows(context: CheckContext, name: str) -> str:
    """SQL that stands for the rows that a table has of the batch, for a FROM clause; see `query.shown`."""
    return shown(context.lake, name, context.staging.scope(name)[name])


def shown_column(table: Table) -> str:
    """The column by which a result names rows of a table."""
    return next(c for c in ("object_id", "study_key", "batch_id", table.key[0]) if c in table)
