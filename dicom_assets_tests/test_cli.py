"""The command `dicom-assets` for real: what it prints where, how it ends, and that `sql` only reads the lake."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess

import dagster as dg
import duckdb
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import Books
from dicom_assets.cli import examples
from dicom_assets.cli.examples import EXAMPLES
from dicom_assets.cli.ingest import newest_closed
from dicom_assets.cli.main import app
from dicom_assets.cli.progress import print_table
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import QueryError, existing, run_read_only
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.landings import LandingFolder, put_mixed

ROOT = Path(__file__).parents[1]
SECRETS = ("P0001", "Test^Patient", "Study 1", "0001.dcm", "diagnoses", "other-site", uid(1), "no-identity")


@dataclass(frozen=True)
class Done:
    """A lake that the command made, and what it printed."""

    folder: Path
    first: CompletedProcess[str]

    def run(self, *arguments: str, stdin: str | None = None) -> CompletedProcess[str]:
        """Runs the command on this lake, from a folder that has nothing to do with it."""
        return command("dicom-assets", *arguments, "--lake", self.folder / "lake", cwd=Path("/"), stdin=stdin)

    def invoke(self, *arguments: str):
        """The same without a process of its own, for what needs none."""
        return CliRunner().invoke(app, [*arguments, "--lake", str(self.folder / "lake")])


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    folder = tmp_path_factory.mktemp("cli")
    put_mixed(LandingFolder(folder / "landing"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    first = command("dicom-assets", "ingest", "--landing", folder / "landing", "--lake", folder / "lake", cwd=elsewhere)
    assert list(elsewhere.iterdir()) == []
    return Done(folder, first)


class TestIngest:
    def test_closes_the_books_prints_them_and_says_on_stderr_how_far_it_is(self, done):
        assert done.first.returncode == 0, done.first.stderr
        header, books = (line.split() for line in done.first.stdout.splitlines())
        assert header == ["batch", "source", "status", "seen", "ingested", "quarantined", "ignored", "deleted"]
        assert books[1:] == ["landing", "closed", "12", "8", "1", "3", "0"]
        assert f"Batch {books[0]}: running" in done.first.stderr
        assert f"Batch {books[0]}: 12 of 12 objects, " in done.first.stderr

    def test_says_nothing_that_is_meant_for_programmers(self, done):
        assert "Warning" not in done.first.stderr
        assert "Traceback" not in done.first.stderr

    def test_says_nothing_about_patients(self, done):
        printed = done.first.stdout + done.first.stderr
        assert [secret for secret in SECRETS if secret in printed] == []
        state = b"".join(path.read_bytes() for path in (done.folder / "lake.dagster").rglob("*") if path.is_file())
        assert [secret for secret in SECRETS if secret.encode() in state] == []

    def test_keeps_dagsters_state_beside_the_lake(self, done):
        assert (done.folder / "lake.dagster" / "dagster.yaml").is_file()

    def test_its_run_stands_under_its_job_in_dagsters_pages(self, done):
        """They ask for the runs of a job by its name and by the label of the code location that holds it."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]
        shown = {".dagster/repository": f"__repository__@{project['code_location_name']}"}
        with dg.DagsterInstance.from_config(str(done.folder / "lake.dagster")) as instance:
            (run,) = instance.get_runs(dg.RunsFilter(job_name="ingest_batch", tags=shown))
        assert run.status is dg.DagsterRunStatus.SUCCESS

    def test_again_has_nothing_to_do(self, done):
        again = done.invoke("ingest", "--landing", str(done.folder / "landing"))
        assert (again.exit_code, again.stdout) == (
            0,
            "Nothing new: every object of the landing zone is accounted for.\n",
        )

    def test_takes_folders_from_the_environment_relative_to_where_it_is_run(self, done, monkeypatch):
        monkeypatch.chdir(done.folder)
        env = {"DICOM_ASSETS_LANDING": "landing", "DICOM_ASSETS_LAKE": "lake"}
        assert CliRunner().invoke(app, ["status"], env=env).stdout.count("closed") == 1


class TestTables:
    """What is printed for a person, on a terminal of 80 columns and elsewhere."""

    ROWS = (("1." + "2" * 50, "x" * 40), ("3", None))

    def shown(self, monkeypatch, capsys, columns: int | None, prose: tuple[str, ...] = (), rows=ROWS) -> list[str]:
        monkeypatch.setattr("sys.stdout.isatty", lambda: columns is not None)
        monkeypatch.setenv("COLUMNS", str(columns or 80))
        print_table(("StudyInstanceUID", "text"), rows, prose)
        return [re.sub("\x1b.*?m", "", line) for line in capsys.readouterr().out.splitlines()]

    def test_what_is_too_wide_for_a_terminal_is_printed_a_value_a_line_and_never_cut(self, monkeypatch, capsys):
        lines = self.shown(monkeypatch, capsys, 80)
        assert lines[1:3] == [f"StudyInstanceUID  {self.ROWS[0][0]}", f"text              {'x' * 40}"]
        assert lines[4:] == ["StudyInstanceUID  3", "text"]

    def test_what_fits_is_a_table(self, monkeypatch, capsys):
        lines = self.shown(monkeypatch, capsys, 100)
        assert [line.split() for line in lines] == [["StudyInstanceUID", "text"], list(self.ROWS[0]), ["3"]]

    def test_only_sentences_are_broken_into_lines(self, monkeypatch, capsys):
        rows = [(self.ROWS[0][0], "words " * 6)]
        lines = self.shown(monkeypatch, capsys, 80, ("text",), rows)
        assert lines[1].split()[0] == self.ROWS[0][0]
        assert len(lines) == 3
        assert max(map(len, lines)) <= 80

    def test_no_word_of_a_sentence_is_broken_which_may_be_an_id(self, monkeypatch, capsys):
        assert "x" * 40 in "\n".join(self.shown(monkeypatch, capsys, 80, ("text",)))

    def test_a_sentence_that_has_a_line_of_its_own_is_broken_between_words(self, monkeypatch, capsys):
        lines = self.shown(monkeypatch, capsys, 45, ("text",), [(self.ROWS[0][0], "a sentence of several words more")])
        assert lines[-2:] == ["text              a sentence of several words", " " * 18 + "more"]

    def test_a_pipe_has_no_width_and_no_blanks_at_the_ends(self, monkeypatch, capsys):
        lines = self.shown(monkeypatch, capsys, None)
        assert lines[1].split() == list(self.ROWS[0])
        assert [line for line in lines if line.endswith(" ")] == []


class TestStatusAndErrors:
    def test_a_table_has_the_newest_closed_batches_and_all_that_wait(self):
        books = [Books(f"b{n}", "s", "paused" if n == 1 else "closed") for n in range(6)]
        assert [one.batch_id for one in newest_closed(books, 2)] == ["b1", "b4", "b5"]
        assert newest_closed(books, None) == books

    def test_status_as_a_table_csv_and_json(self, done):
        shown = done.run("status")
        header, books = (line.split() for line in shown.stdout.splitlines())
        first_header, first_books = (line.split() for line in done.first.stdout.splitlines())
        assert header == [*first_header, "started", "ended"]
        assert books[:-2] == first_books
        assert (shown.returncode, books[-2] <= books[-1]) == (0, True)
        (row,) = csv.DictReader(io.StringIO(done.invoke("status", "-f", "csv").stdout))
        (same,) = json.loads(done.invoke("status", "--format", "json").stdout)
        assert row == {name: str(value) for name, value in same.items()}
        assert (same["status"], same["seen"], same["quarantined"]) == ("closed", 12, 1)

    def test_errors_are_grouped_by_reason_and_say_what_to_do(self, done):
        found = done.invoke("errors", "-f", "json")
        rows = json.loads(found.stdout)
        assert [(row["severity"], row["code"], row["objects"]) for row in rows] == [
            ("error", "MISSING_IDENTITY", 1),
            ("info", "NOT_DICOM", 2),
            ("info", "ARCHIVE_EXPANDED", 1),
        ]
        assert rows[0]["what to do"].startswith("Supply the UIDs at the source")

    def test_errors_of_one_batch(self, done):
        batch = json.loads(done.invoke("status", "-f", "json").stdout)[0]["batch"]
        assert done.invoke("errors", "--batch", batch).stdout == done.invoke("errors").stdout
        unknown = done.invoke("errors", "--batch", "nope")
        assert (unknown.exit_code, unknown.stderr[:40]) == (2, "dicom-assets: No batch 'nope' is claimed")

    def test_each_error_of_a_code_has_its_object_and_its_detail_and_no_path(self, done):
        (row,) = json.loads(done.invoke("errors", "--code", "MISSING_IDENTITY", "-f", "json").stdout)
        assert row["detail"] == "Study, Series or SOP Instance UID is missing"
        assert len(row["object_id"]) == 20
        two = done.invoke("errors", "--code", "NOT_DICOM", "--limit", "1")
        assert (len(two.stdout.splitlines()), two.stderr) == (2, "1 of 2; `--limit` shows more.\n")
        assert [secret for secret in SECRETS if secret in two.stdout] == []
        unknown = done.invoke("errors", "--code", "NOT_DICM")
        assert (unknown.exit_code, "did you mean NOT_DICOM?" in unknown.stderr) == (2, True)

    def test_a_lake_that_is_not_there_is_named_and_not_made(self, done):
        for arguments in (["status"], ["errors"], ["sql", "SELECT 1"]):
            found = CliRunner().invoke(app, [*arguments, "--lake", str(done.folder / "nowhere")])
            assert found.exit_code == 2
            assert "There is no lake at" in found.stderr
            assert "dicom-assets ingest" in found.stderr
        assert not (done.folder / "nowhere").exists()


class TestSql:
    def test_prints_a_table_csv_or_json(self, done):
        query = "SELECT PatientID, count(*) AS n FROM instance GROUP BY 1 ORDER BY 1"
        assert done.invoke("sql", query).stdout.splitlines()[1].split() == ["P0001", "4"]
        assert done.invoke("sql", query, "-f", "csv").stdout == "PatientID,n\nP0001,4\nP0002,1\nP0003,2\n"
        assert json.loads(done.invoke("sql", query, "-f", "json").stdout)[1] == {"PatientID": "P0002", "n": 1}

    def test_reads_a_query_from_stdin(self, done):
        assert done.run("sql", "-", "-f", "csv", stdin="SELECT count(*) AS n FROM study;\n").stdout == "n\n3\n"

    @pytest.mark.parametrize("query", ["DESCRIBE study", "SHOW TABLES", "EXPLAIN SELECT * FROM study", "FROM study"])
    def test_describes_and_explains(self, done, query):
        assert done.invoke("sql", query).exit_code == 0

    def test_a_version_that_no_table_has_is_told_and_ends_with_2(self, done):
        found = done.run("sql", "--at", "99999", "SELECT count(*) FROM study")
        assert (found.returncode, "No table of the lake has a version 99999." in found.stderr) == (2, True)

    def test_a_mistake_in_a_query_is_told_and_ends_with_2(self, done):
        found = done.invoke("sql", "SELECT nope FROM study")
        assert found.exit_code == 2
        assert found.stderr.startswith("dicom-assets: ")
        assert "nope" in found.stderr
        assert "Traceback" not in found.stderr

    @pytest.mark.parametrize(
        "query",
        [
            "COPY study TO '{folder}/stolen.csv'",
            "COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
            "ATTACH '{folder}/lake/x.duckdb'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "RESET lock_configuration",
            "PRAGMA enable_profiling",
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "DELETE FROM study",
            "DROP VIEW study",
            "INSERT INTO study SELECT * FROM study",
            "UPDATE study SET PatientID = 'x'",
            "CALL pragma_version()",
            "EXPORT DATABASE '{folder}/lake/x'",
            "SELECT 1; SELECT 2",
            "SELECT 1; SET threads = 1",
            "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
            "explain (analyze) DELETE FROM study",
            "/* x */ EXPLAIN /* y */ ANALYZE CREATE TABLE t AS SELECT 1",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM read_text('{folder}/lake/../secret.txt')",
            "SELECT * FROM '{folder}/other/x.parquet'",
            "SELECT * FROM read_parquet('{folder}/other/x.parquet')",
            "SELECT * FROM glob('/etc/*')",
            "SELECT * FROM read_csv('https://example.org/x.csv')",
            "SELECT getenv('HOME')",
            "SELECT nextval('x')",
            "",
            ";",
        ],
    )
    def test_refuses_whatever_does_not_just_read_the_lake(self, guarded, query):
        folder, lake = guarded
        with pytest.raises(QueryError):
            run_read_only(lake, query.format(folder=folder)).fetchall()
        assert not (folder / "stolen.csv").exists()

    @pytest.fixture(scope="class")
    @staticmethod
    def guarded(done: Done) -> Iterator[tuple[Path, Lake]]:
        """The lake as the command opens it, which does not change, beside a table and a text that are none of its."""
        (done.folder / "other").mkdir()
        duckdb.sql("SELECT 1 AS secret").write_parquet(str(done.folder / "other" / "x.parquet"))
        (done.folder / "secret.txt").write_text("secret")
        before = sorted((done.folder / "lake").rglob("*"))
        yield done.folder, existing(str(done.folder / "lake"))
        assert sorted((done.folder / "lake").rglob("*")) == before

    def test_what_is_refused_is_told_and_ends_with_2(self, done):
        found = done.invoke("sql", "SELECT * FROM read_text('/etc/passwd')")
        assert (found.exit_code, found.stdout) == (2, "")
        assert found.stderr.startswith("dicom-assets: ")

    def test_tells_a_table_that_the_lake_has_lost_from_one_that_there_never_was(self, tmp_path):
        lake = Lake(str(tmp_path / "lake"))
        shutil.rmtree(tmp_path / "lake" / "study")
        with pytest.raises(QueryError, match=r"Not in this lake: study\. .*verify --fix"):
            run_read_only(existing(lake.uri), "SELECT * FROM study")
        with pytest.raises(QueryError) as told:
            run_read_only(Lake(str(tmp_path / "whole")), "SELECT * FROM nothing")
        assert "Not in this lake" not in str(told.value)


class TestDemo:
    def test_writes_sample_input_once_and_leaves_what_is_there(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        first = CliRunner().invoke(app, ["demo", "landing"])
        assert first.exit_code == 0
        count = int(first.stdout.split()[0])
        assert count == sum(path.is_file() for path in (tmp_path / "landing").rglob("*")) > 100
        (tmp_path / "landing" / "clinical" / "diagnoses.csv").write_text("mine")
        assert CliRunner().invoke(app, ["demo", "landing"]).stdout == first.stdout
        assert (tmp_path / "landing" / "clinical" / "diagnoses.csv").read_text() == "mine"

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path):
        (tmp_path / "file").write_text("")
        found = CliRunner().invoke(app, ["demo", str(tmp_path / "file" / "landing")])
        assert found.exit_code == 2
        assert "cannot write sample input to" in found.stderr


COMMANDS = dict(examples.commands_of(app))


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_explains_itself_and_shows_an_example(self, name):
        found = CliRunner().invoke(app, [*name.split(), "-h"], env={"COLUMNS": "200"})
        assert found.exit_code == 0
        assert "Usage" in found.stdout
        assert EXAMPLES.get(name), f"{name} has no example"

    @pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
    def test_every_example_is_a_command_with_options_that_there_are(self, example):
        word, *arguments = shlex.split(example.partition(" <")[0])
        assert word == "dicom-assets"
        found = CliRunner().invoke(app, [*arguments, "-h"])  # options are parsed before help is shown
        assert found.exit_code == 0, found.output
        assert len(example) <= 78, "help folds it at 80 columns, and then it cannot be copied"

    def test_every_command_stands_below_a_title_that_is_there(self):
        titled = [name for names in examples.TITLES.values() for name in names]
        assert sorted(titled) == sorted({name.split()[0] for name in COMMANDS})
        assert set(EXAMPLES) <= set(COMMANDS)

    def test_the_release_is_said(self):
        assert CliRunner().invoke(app, ["--version"]).stdout.startswith(f"dicom-assets {version('dicom-assets')} (")

    @pytest.mark.slow
    def test_a_paused_batch_ends_with_1_and_says_why_and_resumes_for_one_time(self, tmp_path):
        landing = LandingFolder(tmp_path / "landing")
        for number in range(11):
            landing.put(f"{number}.dcm", dicom(instance=number + 1, StudyInstanceUID=None))
        arguments = ["ingest", "--landing", str(landing.root), "--lake", str(tmp_path / "lake")]
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 1
        assert "paused" in found.stdout
        assert "all 11 objects are quarantined. Remove the cause and run it again" in found.stderr
        again = CliRunner().invoke(app, [*arguments, "--quarantined-share", "1"])
        assert (again.exit_code, again.stdout.split()[10]) == (0, "closed")
