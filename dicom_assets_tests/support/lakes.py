"""Lakes run in process: settings for a test's folders, claiming, the real job on an ephemeral instance, and the tables.

Belongs here: what a test needs to run the graph and to look at what it did. Does not belong here: the command line
(`commands`).
"""

from __future__ import annotations

import atexit
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

from dicom_assets.batch.books import Books, books_of
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.steps import Run, each_table
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.jobs import register
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import VIEWS, arrow, connect, has_lake, is_there
from dicom_assets.landing.claims import claim_new
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.support.inline_engine import InlineEngine

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def settings_for(lake: Path, *landings: Path, **sections: Any) -> Settings:
    """Settings of a test: sources `landing`, `landing2`, … and sections such as `gate={…}`."""
    names = ["landing", *(f"landing{number}" for number in range(2, len(landings) + 1))]
    return Settings.model_validate(
        {
            "lake": str(lake),
            "sources": [{"name": name, "root": str(root)} for name, root in zip(names, landings, strict=True)],
            "reading": {"workers": 1, **sections.pop("reading", {})},
            **sections,
        }
    )


@cache
def _database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@cache
def empty_lake() -> Path:
    """A lake without rows, to be copied: a tenth of a second less than making one."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Lake(str(folder / "lake"))
    return folder / "lake"


class Looked(Lake):
    """A lake to look at: opening DuckDB costs most of a small question, so all such lakes share one database."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """See `Tables.cursor`."""
        return _database().cursor()


@dataclass
class Graph:
    """The real graph over one lake, run in this process on an ephemeral instance."""

    settings: Settings
    instance: dg.DagsterInstance
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        """The lake as it is now; made where there is none. Of one that is there, what is asked for is opened."""
        uri = self.settings.lake
        return Lake(uri, make="://" in uri or not has_lake(uri))

    @contextmanager
    def work(self) -> Iterator[RunContext]:
        """A RunContext of its own, closed at the end."""
        with RunContext(self.settings) as work:
            yield work

    def claim(self, work: RunContext | None = None) -> list[str]:
        """Claims what is new in every source and registers the batches; which. work: of whoever goes on with it."""
        with nullcontext(work) if work else self.work() as one:
            self._begin()
            if work is None:
                one.lake = self.lake  # claims need no table
            claimed = [
                claim.batch_id
                for store in one.stores()
                for claim in claim_new(store, one.log, self.settings.claiming).claims
            ]
            register(self.instance, claimed)
            return claimed

    def _begin(self) -> None:
        """Makes the lake, where it is to lie in a folder that is not there."""
        uri = self.settings.lake
        if "://" not in uri and not Path(uri).exists():
            shutil.copytree(empty_lake(), uri)

    def run(
        self, batch_id: str, config: Mapping[str, Any] | None = None, select: Sequence[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Runs job ingest_batch for one batch; a failure is in the result, not raised. config: run config of ops."""
        job = build_defs(self.settings, engine=InlineEngine()).resolve_job_def("ingest_batch")
        result = job.execute_in_process(
            partition_key=batch_id,
            instance=self.instance,
            raise_on_error=False,
            run_config={**QUIET, "ops": dict(config or {})},
            asset_selection=[dg.AssetKey(name) for name in select] if select else None,
        )
        self.results[batch_id] = result
        return result

    def ingest(self) -> list[str]:
        """Claims and runs what is new; the batches, in their order."""
        batches = self.claim()
        for batch in batches:
            self.run(batch)
        return batches

    @property
    def _looked(self) -> Lake:
        is_there(self.settings.lake)
        return (Lake if "://" in self.settings.lake else Looked)(self.settings.lake, make=False)

    def books(self, batch_id: str) -> Books:
        """The books of one batch."""
        found = books_of(self._looked, batch_id)
        assert found is not None, "the batch never started"
        return found

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query over the lake's tables.

        Opening a lake looks at every table, and making a view of every table opens a file of each: a query that names
        its tables is asked of these alone, which takes a fifth. Whatever cannot be asked so is asked of all of them.
        """
        words = set(re.findall(r"\w+", sql))
        needed = {name for view in words & set(VIEWS) for name in VIEWS[view][0]}
        named = [name for name in TABLES if name in words | needed]
        with suppress(LakeError, duckdb.Error), connect(self._looked, named or None) as connection:
            return arrow(connection, sql).to_pylist()
        with connect(self.lake) as connection:
            return arrow(connection, sql).to_pylist()

    def checks(self, batch_id: str) -> dict[str, dg.AssetCheckEvaluation]:
        """What the checks of a batch's last run said, by `table.check`."""
        return {
            f"{one.asset_key.to_user_string()}.{one.check_name}": one
            for one in self.results[batch_id].get_asset_check_evaluations()
        }


def quiet_dagster() -> None:
    """Dagster's events are looked at as values; on the terminal they would hide a test's failure."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)


def table(lake: Lake, name: str, *, without: Sequence[str] = ()) -> pa.Table:
    """All rows of a table, in the order of its key, without some columns."""
    order = ", ".join(f'"{column}"' for column in TABLES[name].key)
    with connect(lake, [name]) as connection:
        found = arrow(connection, f"SELECT * FROM {name} ORDER BY {order}")
    return found.drop_columns(list(without)) if without else found


VARYING = {
    "validated_batch": ["judged_at"],
    "ingestion_errors": ["occurred_at", "run_id"],
    "batches": ["started_at", "closed_at", "run_id", "step_seconds"],
    "erasure": ["finished_at"],
}
"""Columns that say when and by which run something happened: a rerun changes these and no other."""


def contents(lake: Lake, names: Sequence[str] = tuple(TABLES)) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but for the columns of VARYING, ready to be compared."""
    return {
        name: table(lake, name, without=VARYING.get(name, ())).to_pylist() if len(lake.extents(name)) else []
        for name in names
    }


def commits(lake: Path) -> dict[str, list[str]]:
    """What the log of each table of a lake in a folder holds: while it is the same, so is every row."""
    return {log.parent.name: sorted(entry.name for entry in log.iterdir()) for log in sorted(lake.glob("*/_delta_log"))}


def versions(lake: Lake) -> dict[str, int]:
    """The Delta version of every table."""
    return {name: lake.table(name).version() for name in TABLES}


TABLES_OF_A_BATCH = [name for name, _ in each_table()]
"""Each asset of a batch, in the order of the flow."""


def make_asset(name: str, batch_id: str, work: RunContext) -> None:
    """Makes one asset of a batch, without Dagster's run around it."""
    dict(each_table())[name](work.batch(batch_id), Run("run"))
