"""What came from outside reaches a terminal without control characters, and a spreadsheet without formulas."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dicom_assets import printing, settings
from dicom_assets.cli import main as cli
from dicom_assets.cli.main import app
from dicom_assets.cli.options import clear_errors
from dicom_assets.printing import cell, csv_text, json_text, visible
from dicom_assets.service.push import Outcome, Pushed, write_report
from dicom_assets.settings import UserError
from dicom_assets_tests.support.dicoms import dicom

TITLE = "\x1b]0;owned\x07"
HOSTILE = [TITLE, "\x9b31m", "a\rb", "\u202egnp.exe", "\u2066x", "\x7f", "\x00"]
FORMULAS = ["=cmd|'/c calc'!A0", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_a_visible_text_has_no_control_character_and_can_be_encoded(text: str):
    shown = visible(text)
    assert not CONTROLS.search(shown)
    assert "\n" not in shown
    shown.encode()


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_what_is_harmless_stays_as_it_is(text: str):
    assert visible(text) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_in_csv_has_an_apostrophe_before_it(text: str):
    assert cell(text) == f"'{text}"


def test_numbers_stay_numbers_in_csv():
    rows = [(-1, -1.5, Decimal("-2.50"), None, "-3", "4MR1", True)]
    (line,) = csv.reader(io.StringIO(csv_text(list("abcdefg"), rows).partition("\n")[2]))
    assert line == ["-1", "-1.5", "-2.50", "", "'-3", "4MR1", "true"]


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_for_a_program_keeps_every_character_and_on_a_terminal_has_no_controls(text: str, monkeypatch):
    (row,) = csv.reader(io.StringIO(csv_text(["a"], [(f"x{text}",)]).partition("\n")[2], newline=""))
    assert row == [f"x{text}"]
    monkeypatch.setattr(printing.sys, "stdout", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    assert not CONTROLS.search(csv_text([text], [(text,)]))


@pytest.mark.parametrize("text", HOSTILE)
def test_json_says_the_same_value_without_a_control_character(text: str):
    made = json_text(["a"], [(text,)])
    assert json.loads(made) == [{"a": text}]
    assert not CONTROLS.search(made)


def test_json_is_json_with_every_digit_and_no_column_lost():
    row = (float("nan"), float("inf"), Decimal("1234567890123456789.50"), 2**100, 1, 2, b"\x00\xff", {"x": [1, None]})
    made = json_text(["nan", "inf", "decimal", "big", "a", "a", "bytes", "nested"], [row])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    (found,) = json.loads(made, parse_float=Decimal, parse_constant=refuse)
    assert found == {
        "nan": None, "inf": None, "decimal": Decimal("1234567890123456789.50"), "big": 2**100, "a": 1, "a_1": 2,
        "bytes": "AP8=", "nested": {"x": [1, None]},
    }  # fmt: skip


def test_lists_and_structures_in_csv_are_read_back_by_duckdb(tmp_path):
    values = (["a", "b,c", "it's"], {"x": 1, "y": "=1"}, [Decimal("1.50")], True)
    (tmp_path / "rows.csv").write_text(csv_text(["texts", "pair", "numbers", "truth"], [values]), encoding="utf-8")
    with duckdb.connect() as connection:
        found = connection.execute(f"""
            SELECT texts::VARCHAR[], pair::STRUCT(x INTEGER, y VARCHAR), numbers::DECIMAL(9, 2)[], truth
            FROM read_csv('{tmp_path / "rows.csv"}')
        """).fetchone()
    assert found == values


@pytest.fixture(scope="module")
def lake(states) -> str:
    """A lake of one image."""

    def make(graph, landing) -> None:
        landing.put("a.dcm", dicom())
        graph.ingest()

    graph, _, _ = states.begin(make)
    return graph.settings.lake


QUERY = "SELECT chr(27) || ']0;owned' || chr(7) AS title, '=cmd|x' AS formula, -1 AS number FROM study"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("table", ["\\x1b]0;owned\\x07", "=cmd|x", "-1"]),
        ("csv", [TITLE, "'=cmd|x", "-1"]),
        ("json", ["\\u001b]0;owned\\u0007", "=cmd|x", "-1"]),
    ],
)
def test_the_command_cleans_what_tables_hold(lake, form, expected):
    done = CliRunner().invoke(app, ["sql", QUERY, "--lake", lake, "--format", form])
    assert done.exit_code == 0, done.output
    assert all(one in done.stdout for one in expected), done.stdout
    assert form == "csv" or TITLE not in done.stdout


def test_what_a_server_said_is_cleaned_before_it_is_shown(capsys):
    with pytest.raises(Exception, match=""), clear_errors():
        raise UserError(f"pacs: the server answered {TITLE}\x9b1m")
    assert capsys.readouterr().err == "dicom-assets: pacs: the server answered \\x1b]0;owned\\x07\\x9b1m\n"


def test_the_report_of_a_push_runs_nothing_in_a_spreadsheet(tmp_path):
    fields = dict.fromkeys(Pushed.__dataclass_fields__, "")
    name = next(iter(fields))
    write_report(tmp_path / "report.csv", [Pushed(**{**fields, name: "=cmd|x", "outcome": Outcome.FAILED})])
    assert "'=cmd|x" in (tmp_path / "report.csv").read_text()


@pytest.fixture
def status(monkeypatch, tmp_path, capsys) -> Callable[..., tuple[str, str]]:
    """Runs `dicom-assets status` as its entry point does, in a folder of its own: stdout and stderr."""

    def run(*arguments: str, config: Path | None = None) -> tuple[str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["dicom-assets", "status", *arguments])
        monkeypatch.setattr(cli, "leave", sys.exit)
        monkeypatch.setattr(settings, "tell_file", settings.tell_file)  # main sets it
        monkeypatch.delenv("DICOM_ASSETS_CONFIG", raising=False)
        if config is not None:
            monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


@pytest.mark.parametrize("named", [True, False])
def test_a_command_says_on_stderr_which_file_its_settings_are_from_and_stdout_stays_the_result(
    lake, tmp_path, status, named
):
    config = tmp_path / ("other.toml" if named else "dicom-assets.toml")
    config.write_text(f'lake = "{lake}"\n')
    result, said = status("--format", "json", config=config if named else None)
    assert said.count(f"Settings: {config}\n") == 1
    assert len(json.loads(result)) == 1


def test_a_command_without_a_file_speaks_of_none(lake, status):
    assert "Settings:" not in status("--lake", lake)[1]
