"""A promoted column is one like any other: filled for what is there, as if it had always been there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dicom_assets.batch.promotion import ColumnError, declare, fill, remove
from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.cli.main import app
from dicom_assets.defs.graph import build_defs
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake.column_list import READY
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import tidy
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.promoted import PromotedColumn, promoted
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import QUIET, settings_for
from dicom_assets_tests.support.steps import Stepped
from dicom_assets_tests.support.versions import LEVELS, Version, batch_name, flat_rows, versions

CREATOR = "SIEMENS MR HEADER"
COLUMNS = [
    promoted(f"(0019,{CREATOR},0C)", name="b_value"),
    promoted("RequestAttributesSequence.ScheduledProcedureStepID", name="steps", level="study"),
    promoted("PatientOrientation", level="series"),
    promoted("AcquisitionDuration", name="seconds", level="series"),
]
TABLES_WITH = ("flat_metadata", "instance", "series", "study")


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables."""
    return stepped


def open_lake(folder: Path | str) -> Lake:
    return Lake(str(folder), take=values_of)


def header_of(version: Version) -> str:
    """A header that follows from a version, so that each instance says something else."""
    number, said = version.number, version.description
    header: dict[str, Any] = {"00189073": {"vr": "FD", "Value": ["NaN" if number % 5 == 0 else number / 2]}}
    if said:
        header["00190011"] = {"vr": "LO", "Value": [CREATOR]}
        header["0019110C"] = {"vr": "IS", "Value": [number]}
        items = [{"00400009": {"vr": "SH", "Value": [f"{said}{n}"]}} for n in range(number % 3)]
        header["00400275"] = {"vr": "SQ", "Value": items}
    if number % 2:
        header["00200020"] = {"vr": "CS", "Value": ["L", said or "P"]}
    return orjson.dumps(dict(sorted(header.items()))).decode()


def publish(lake: Lake, batch: Sequence[Version]) -> None:
    rows = flat_rows(batch)
    headers = [None if version.deletes else header_of(version) for version in batch]
    rows = rows.set_column(rows.schema.get_field_index("header"), "header", pa.array(headers, pa.string()))
    staging = Staging(lake.files, batch_name(batch[0].batch))
    staging.stage(Part.FLAT, rows)
    publish_flat(lake, staging)
    for level in LEVELS:
        publish_hierarchy(lake, staging, level)


def contents(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    with connect(lake, alone=True) as connection:
        found = {name: arrow(connection, f"FROM {name}").to_pylist() for name in TABLES_WITH}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def promote(lake: Lake, columns: Sequence[PromotedColumn] = COLUMNS) -> None:
    declare(lake, columns)
    fill(lake)


def some(batch: int) -> list[Version]:
    return [Version(1 + n % 2, 1, n, 0, 0, False, "ab"[n % 2], "P1", 10 * batch + n + 3, batch) for n in range(3)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, empty_lake: Path) -> Path:
    """A lake without rows that has the columns, to be copied."""
    folder = Path(shutil.copytree(empty_lake, tmp_path_factory.mktemp("prepared") / "lake"))
    promote(open_lake(folder))
    return folder


@pytest.mark.slow
@settings(max_examples=2)
@given(versions(), st.integers(0, 3))
def test_filled_for_what_is_there_equals_having_been_there_from_the_beginning(empty_lake, prepared, batches, before):
    with tempfile.TemporaryDirectory() as folder:
        late = open_lake(shutil.copytree(empty_lake, f"{folder}/late"))
        early = open_lake(shutil.copytree(prepared, f"{folder}/early"))
        for number, batch in enumerate(batches):
            if number == before:
                promote(late)
            publish(late, batch)
            publish(early, batch)
        promote(late)
        assert contents(late) == contents(early)
        flat = contents(late)["flat_metadata"]
        headers = pa.array([row["header"] for row in flat], pa.string())
        for column, values in zip(COLUMNS, values_of(headers, COLUMNS), strict=True):
            assert [row[column.name] for row in flat] == values.to_pylist()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_lake: Path) -> Path:
    """A lake of two batches, to be copied."""
    folder = Path(shutil.copytree(empty_lake, tmp_path_factory.mktemp("made") / "lake"))
    lake = open_lake(folder)
    for batch in range(2):
        publish(lake, some(batch))
    return folder


@pytest.fixture
def lake(made, tmp_path) -> Lake:
    shutil.copytree(made, tmp_path / "lake")
    return open_lake(tmp_path / "lake")


def test_levels_take_the_value_as_they_take_others_and_misfits_are_counted(lake):
    promote(lake)
    assert [one.stage for one in lake.columns] == [READY] * len(COLUMNS)
    with connect(lake) as connection:
        told = connection.execute(
            "SELECT count(*), count(b_value), count(steps), count(PatientOrientation) FROM flat_metadata"
        ).fetchall()
        newest = connection.execute(
            "SELECT s.seconds = arg_max(i.seconds, (i.version_at, i.sequence, i.object_id)) "
            "FROM instance i JOIN series s USING (SeriesInstanceUID) GROUP BY s.seconds, SeriesInstanceUID"
        ).fetchall()
        assert "b_value" not in [c[0] for c in connection.execute("DESCRIBE series").fetchall()]
    assert told[0][:2] == (6, 6)
    assert {one for (one,) in newest} == {True}
    (seconds,) = [one.misfits for one in lake.columns if one.column.name == "seconds"]
    assert seconds == len([v for batch in range(2) for v in some(batch) if v.number % 5 == 0])


@pytest.mark.slow
def test_nobody_sees_a_column_before_it_is_whole_and_a_kill_leaves_what_goes_on(lake, tmp_path, monkeypatch):
    shutil.copytree(lake.uri, tmp_path / "reference")
    reference = open_lake(tmp_path / "reference")
    promote(reference, COLUMNS[:2])

    class Killed(BaseException):
        pass

    kept, commits = Lake.commit, 0

    def commit(self, *arguments, **options):
        nonlocal commits
        kept(self, *arguments, **options)
        commits += 1
        raise Killed

    declare(lake, COLUMNS[:2])
    monkeypatch.setattr(Lake, "commit", commit)
    for _ in range(40):
        try:
            fill(open_lake(lake.uri))
            break
        except Killed:
            seen = Lake(lake.uri, make=False)
            with connect(seen, alone=True) as connection:
                for name in TABLES_WITH:
                    told = {c[0] for c in connection.execute(f"DESCRIBE {name}").fetchall()}
                    assert told == {*seen.schema(name).names}
    monkeypatch.undo()
    assert commits >= 5  # files of flat_metadata get both columns at once
    assert contents(open_lake(lake.uri)) == contents(reference)


@pytest.mark.slow
def test_a_process_that_opened_the_lake_before_publishes_the_column_too(lake, tmp_path):
    before = open_lake(lake.uri)
    promote(open_lake(lake.uri))
    publish(before, some(4))
    assert tidy(before, "flat_metadata") in (0, 1)
    after = contents(open_lake(lake.uri))
    assert all(row["b_value"] is not None for row in after["flat_metadata"])
    assert all(row["b_value"] is not None for row in after["instance"])


def test_one_that_publishes_while_a_column_is_filled_leaves_no_file_without_it(lake):
    before = open_lake(lake.uri)
    published: list[int] = []

    def tell(table: str, done: int, of: int) -> None:
        if (table, done) == ("flat_metadata", 0) and not published:
            published.append(of)
            publish(before, some(5))

    declare(lake, COLUMNS)
    fill(lake, tell)
    assert published
    found = contents(open_lake(lake.uri))
    assert len(found["flat_metadata"]) == 9
    assert all(row["b_value"] is not None for name in ("flat_metadata", "instance") for row in found[name])


def test_a_column_that_is_removed_is_gone_from_tables_and_files_and_may_come_back_otherwise(lake):
    whole = contents(lake)
    promote(lake)
    for column in COLUMNS:
        remove(lake, column.name)
    assert contents(lake) == whole
    assert not any(lake.is_mixed(name) for name in TABLES_WITH)
    promote(lake, [promoted("PatientOrientation", name="b_value")])
    assert {str(row["b_value"]) for row in contents(lake)["flat_metadata"]} == {"None", "['L', 'a']"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "Nope"], "no attribute"),
        (["add", ""], "Give a path"),
        (["add", "PixelData"], "no column can hold"),
        (["add", "PatientID"], "Table flat_metadata has a column PatientID already"),
        (["add", "PatientOrientation", "--name", "patientid"], "has a column PatientID already"),
        (["add", "PatientOrientation", "--level", "ward"], "no level"),
        (["remove", "PatientID"], "a column of the registry"),
        (["remove", "nothing"], "no promoted column nothing"),
    ],
)
def test_what_cannot_be_is_told_with_what_to_do_and_changes_nothing(empty_lake, tmp_path, words, says):
    folder = Path(shutil.copytree(empty_lake, tmp_path / "lake"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "_locks" not in str(path)}
    done = CliRunner().invoke(app, ["columns", *words, "--lake", str(folder)])
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "_locks" not in str(path)}
    assert after == before


def test_two_columns_of_one_name_are_refused_together(lake):
    twice = [promoted("PatientOrientation", name="x"), promoted("AcquisitionDuration", name="X")]
    with pytest.raises(ColumnError, match="Two columns are named"):
        declare(lake, twice)
    assert lake.columns == ()


@pytest.mark.slow
def test_the_settings_name_columns_the_graph_fills_them_and_a_batch_closes_with_them(graph, landing):
    landing.put("a.dcm", dicom(1, 1, 1, PatientOrientation=["L", "P"]))
    graph.judges = False
    graph.ingest()
    columns = [{"path": "PatientOrientation", "level": "series"}]
    graph = replace(graph, settings=settings_for(Path(graph.settings.lake), landing.root, columns=columns), judges=True)
    job = build_defs(graph.settings).resolve_job_def("promote_columns")
    result = job.execute_in_process(instance=graph.instance, run_config=QUIET)
    assert result.success
    landing.put("b.dcm", dicom(1, 2, 1, PatientOrientation=["A", "F"]))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"
    found = graph.rows("SELECT PatientOrientation AS o FROM series ORDER BY ALL")
    assert [row["o"] for row in found] == [["A", "F"], ["L", "P"]]


def test_a_column_is_filled_for_objects_that_corrections_move(tmp_path, landing, instance, empty_lake):
    shutil.copytree(empty_lake, tmp_path / "lake")
    graph = Stepped(settings_for(tmp_path / "lake", landing.root, corrections={"files": ["corrections/**"]}), instance)
    promote(open_lake(graph.settings.lake), [promoted("PatientOrientation", level="study")])
    landing.put("corrections/a.csv", table(correction("study", uid(1), StudyInstanceUID=uid(2))))
    landing.put("1.dcm", dicom(1, 1, 1, PatientOrientation=["L", "P"]))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed", graph.books(batch).reason
    (study,) = graph.rows("FROM study")
    assert (study["StudyInstanceUID"], study["PatientOrientation"]) == (uid(2), ["L", "P"])
