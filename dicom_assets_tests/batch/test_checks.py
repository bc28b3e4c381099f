"""Every blocking rule holds for a sound batch, and fails when what it guards is broken: one way of breaking each."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from dicom_assets.batch.books import Status, _write, books_of
from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    judge,
    judge_unless_same,
    studies_of,
)
from dicom_assets.batch.checks.parity_checks import RULES
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import without_identity
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed

ASSETS = [*TABLES_OF_A_BATCH]
BLOCKING = [rule for rule in RULES if rule.blocking and rule.table in ASSETS]


def called(rule: NamedRule) -> str:
    """The name of a rule, as people see it."""
    return f"{rule.table}.{rule.name}"


REPORT = (
    '{"resourceType":"DiagnosticReport","id":"r1","status":"final","code":{"text":"CT"},'
    '"subject":{"reference":"Patient/p1"}}\n'
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A lake with one batch that is published but not cleaned up, so that its staging can be looked at."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    put_mixed(landing)
    landing.put("clinical/reports.ndjson", REPORT)
    landing.put("corrections.csv", table(correction("study", "1.2.3", PatientID="P")))
    for number in range(8):
        landing.put(f"odd/{number}.dcm", without_identity(number))
        landing.put(f"odd/{number}.txt", "nothing")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(settings_for(folder / "lake", landing.root, corrections={"files": ["*.csv"]}), instance)
        (batch,) = graph.claim()
        assert graph.run(batch, select=[name for name in ASSETS if name != "cleanup"]).success
    yield folder / "lake", batch


@pytest.fixture
def context(sound, tmp_path) -> CheckContext:
    """A copy of the sound lake that a test may break."""
    lake = Lake(shutil.copytree(sound[0], tmp_path / "lake").as_posix(), make=False)
    return CheckContext(lake, Staging(lake.files, sound[1]))


def cleaned(context: CheckContext) -> CheckContext:
    """The books closed and the staging gone, as cleanup leaves them."""
    books = books_of(context.lake, context.staging.batch_id)
    counts = {"seen": 30, "ingested": 10, "quarantined": 9, "ignored": 11}
    _write(context.lake, replace(books, **counts, status=Status.CLOSED, closed_at=datetime.now(UTC)))
    context.staging.remove()
    return context


def _restage(context: CheckContext, part: Part, change: Callable[[pa.Table], pa.Table]) -> None:
    context.staging.stage(part, change(context.staging.read(part)))


def without_first_staged(part: Part) -> Callable[[CheckContext], None]:
    """Loses one staged row."""
    return lambda context: _restage(context, part, lambda rows: rows.slice(1))


def one_more_staged(part: Part) -> Callable[[CheckContext], None]:
    """Stages one row twice."""
    return lambda context: _restage(context, part, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))


def without_error_rows(context: CheckContext) -> None:
    """Loses why something was quarantined."""
    _restage(context, Part.ERRORS, lambda rows: rows.filter(pc.not_equal(rows["code"], "MISSING_IDENTITY")))


def without_published(table: str) -> Callable[[CheckContext], None]:
    """Loses one row of a table."""

    def lose(context: CheckContext) -> None:
        found = context.lake.table(table)
        first = found.to_pyarrow_table(columns=["object_id"])["object_id"][0].as_py()
        found.delete(f"object_id = '{first}'")

    return lose


def without_an_index_entry(context: CheckContext) -> None:
    """Loses one study of the index of studies."""
    found = context.lake.table("batch_study")
    found.delete(f"study_key = '{found.to_pyarrow_table()['study_key'][0].as_py()}'")


def doubled(table: str) -> Callable[[CheckContext], None]:
    """Publishes a table's rows a second time, as a broken replacement would."""

    def double(context: CheckContext) -> None:
        location = context.lake.location(table)
        write_deltalake(location, DeltaTable(location).to_pyarrow_table(), mode="append")

    return double


def with_a_column_more(table: str) -> Callable[[CheckContext], None]:
    """Gives a table a column that the registry does not know."""

    def add(context: CheckContext) -> None:
        location = context.lake.location(table)
        rows = DeltaTable(location).to_pyarrow_table().slice(0, 0)
        write_deltalake(
            location, rows.append_column("foreign", pa.array([], pa.string())), mode="append", schema_mode="merge"
        )

    return add


def too_much_quarantined(context: CheckContext) -> None:
    """Quarantines everything."""

    def quarantine(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("outcome")
        return rows.set_column(place, rows.schema.field(place), pa.array(["quarantined"] * len(rows)))

    _restage(context, Part.LEDGER, quarantine)


def books_that_do_not_balance(context: CheckContext) -> None:
    """Counts one object less than was seen."""
    cleaned(context)
    books = books_of(context.lake, context.staging.batch_id)
    _write(context.lake, replace(books, ingested=books.ingested - 1))


def staging_left_behind(context: CheckContext) -> None:
    """Leaves a staged file after the books were closed."""
    cleaned(context)
    context.staging.put(Part.TOUCHED, 0, SCHEMAS[Part.TOUCHED].empty_table())


BREAKS: dict[str, Callable[[CheckContext], None]] = {
    "raw_files.rows_published": without_published("raw_files"),
    "validated_batch.rows_published": without_published("validated_batch"),
    "validated_batch.claimed_equals_judged": without_first_staged(Part.LEDGER),
    "validated_batch.accepted_are_staged": one_more_staged(Part.FLAT),
    "validated_batch.refused_have_errors": without_error_rows,
    "validated_batch.gate": too_much_quarantined,
    "flat_metadata.equals_ledger": without_published("flat_metadata"),
    "flat_metadata.studies_are_indexed": without_an_index_entry,
    "clinical.records_accounted": without_published("clinical"),
    "instance.equals_flat_metadata": without_published("instance"),
    "series.equals_flat_metadata": without_published("series"),
    "study.equals_flat_metadata": without_published("study"),
    "ingestion_errors.rows_published": without_published("ingestion_errors"),
    "cleanup.books_are_closed": books_that_do_not_balance,
    "cleanup.staging_is_empty": staging_left_behind,
    **{f"{rule.table}.as_registered": doubled(rule.table) for rule in BLOCKING if rule.name == "as_registered"},
    # The batch has no rows of these.
    **{f"{table}.as_registered": with_a_column_more(table) for table in ("series_geometry", "duplicate")},
}
"""One way of breaking what each blocking rule guards. A rule without one fails the tests below: add it here."""


@pytest.fixture(scope="module")
def untouched(sound) -> CheckContext:
    """The sound lake itself, for what only looks at it."""
    lake = Lake(sound[0].as_posix(), make=False)
    return CheckContext(lake, Staging(lake.files, sound[1]))


@pytest.mark.parametrize("rule", [rule for rule in BLOCKING if rule.table != "cleanup"], ids=called)
def test_a_rule_holds_for_a_sound_batch(untouched, rule: NamedRule):
    result = rule.rule(untouched)
    assert result.passed, result
    assert not result.differing


@pytest.mark.parametrize("rule", [rule for rule in BLOCKING if rule.table == "cleanup"], ids=called)
def test_a_rule_holds_for_a_closed_batch(context, rule: NamedRule):
    result = rule.rule(cleaned(context))
    assert result.passed, result
    assert not result.differing


@pytest.mark.parametrize("rule", BLOCKING, ids=called)
def test_a_rule_fails_when_what_it_guards_is_broken(context, rule: NamedRule):
    BREAKS[called(rule)](context)
    result = rule.rule(context)
    assert not result.passed
    assert result.expected != result.actual or rule.name == "staging_is_empty"
    assert len(result.differing) <= SHOWN
    if rule.table != "cleanup":
        assert result.differing, "a failing rule names what differs"
        assert all(re.fullmatch(r"[\w-]+", name) for name in result.differing)


@pytest.mark.parametrize("rule", [rule for rule in BLOCKING if rule.name == "as_registered"], ids=lambda r: r.table)
def test_a_table_with_a_column_more_is_not_as_registered(context, rule: NamedRule):
    with_a_column_more(rule.table)(context)
    result = rule.rule(context)
    assert not result.passed
    assert result.differing


def test_what_differs_is_named_by_object_id_and_bounded(context):
    _restage(context, Part.LEDGER, lambda rows: rows.slice(0, 0))
    (rule,) = [rule for rule in BLOCKING if rule.name == "claimed_equals_judged"]
    result = rule.rule(context)
    assert (result.expected, result.actual) == (30, 0)
    assert len(result.differing) == SHOWN
    assert set(result.differing) <= set(context.staging.read(Part.RAW)["object_id"].to_pylist())


def test_an_object_judged_twice_is_found_though_the_numbers_agree(context):
    def swap(rows: pa.Table) -> pa.Table:
        return pa.concat_tables([rows.slice(1), rows.slice(1, 1)])

    _restage(context, Part.LEDGER, swap)
    (rule,) = [rule for rule in BLOCKING if rule.name == "claimed_equals_judged"]
    result = rule.rule(context)
    assert (result.passed, result.expected, result.actual) == (False, 30, 30)
    assert len(result.differing) == 2


def test_closing_asks_a_rule_again_when_a_table_that_it_looked_at_has_changed(context):
    asked = []

    def rule(seen: CheckContext) -> CheckResult:
        asked.append(seen.lake.extents("series").version)
        return CheckResult(True, 0, 0)

    judge(context, rule)
    assert judge_unless_same(context, rule).passed
    assert len(asked) == 1
    with context.lake.committing("series"):
        context.lake.replace("series", [studies_of(context)[0]], context.lake.tables["series"].schema.empty_table())
    assert judge_unless_same(context, rule).passed
    assert len(asked) == 2
    assert asked[1] > asked[0]


def test_what_several_rules_ask_for_is_found_once_though_they_are_looked_at_side_by_side(sound):
    lake = Lake(sound[0].as_posix())
    context = CheckContext(lake, Staging(lake.files, sound[1]))
    begun, asked = threading.Event(), []

    def find(_: CheckContext) -> int:
        asked.append(1)
        begun.wait(0.1)
        return len(asked)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: context.once("number", find), range(2))) == [1, 1]
