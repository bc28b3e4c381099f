"""Conditions that users write: one expression over columns, and nothing that reads or changes."""

from __future__ import annotations

import duckdb
import pytest

from dicom_assets.lake.conditions import ConditionError, Unasked, ask, grammar, locked
from dicom_assets.schema.registry import FLAT_METADATA


@pytest.fixture(scope="module")
def known():
    with grammar(FLAT_METADATA.schema) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("StudyDate <= ingested_at::DATE + INTERVAL 1 DAY", {"StudyDate", "ingested_at"}),
        ("modality <> 'CT' OR AccessionNumber IS NOT NULL -- said so in 2024", {"Modality", "AccessionNumber"}),
        ("regexp_matches(PatientID, '^P[0-9]+$') AND upper(split_part(PatientID, '-', 1)) <> 'X'", {"PatientID"}),
        ("header ->> '$.00100021.Value[0]' = 'HOSPITAL'", {"header"}),
        ("len(list_filter(issues, lambda code: code LIKE 'UID%')) = 0", {"issues"}),
        ("CASE WHEN Modality IN ('CT', 'MR') THEN Rows BETWEEN 64 AND 4096 ELSE true END", {"Modality", "Rows"}),
    ],
)  # fmt: skip
def test_a_condition_over_columns_is_sound_and_says_which_it_names(known, text, columns):
    assert known.condition(text).columns == columns


REFUSED = {
    "PatientID = ": "syntax error at its end",
    "Modality == = 'CT'": "syntax error at character",
    "1) OR (1 = 1": "syntax error",
    "true) OR true; DROP TABLE offered; --": "syntax error",
    "true; DROP TABLE offered": "syntax error",
    "DROP TABLE offered": "syntax error",
    "SELECT 1": "syntax error",
    "PRAGMA database_list": "syntax error",
    "COPY offered TO 'x'": "syntax error",
    "ATTACH 'x'": "ATTACH does not exist",
    "ATTACH DATABASE 'x'": "syntax error",
    "INSTALL httpfs": "syntax error",
    "true AS holds": "syntax error",
    "true, false": "not true or false",
    "PatientID": "it gives VARCHAR",
    "StudyDat < DATE '2024-01-01'": "there is no column StudyDat; nearest: StudyDate",
    "nothing.PatientID = 'x'": "there is no column nothing",
    "regex_matches(PatientID, 'x')": "there is no function regex_matches; nearest: regexp_matches",
    "count(*) > 1": 'level = "study" or "batch"',
    "max(Rows) > 1": 'level = "study" or "batch"',
    "row_number() OVER () > 1": "a window function",
    "EXISTS (SELECT 1)": "a query within it",
    "PatientID IN (FROM read_csv('/etc/passwd'))": "function read_csv is none of values",
    "EXISTS (FROM glob('/*'))": "function glob is none of values",
    "EXISTS (FROM read_parquet('https://example.org/x'))": "function read_parquet is none of values",
    "EXISTS (FROM query('SELECT 1'))": "function query is none of values",
    "COLUMNS(*) IS NOT NULL": "a star",
    "PatientID = $1": "a parameter",
    "StudyDate <= current_date": "ingested_at",
    "StudyDate <= now()": "ingested_at",
    "random() < 0.5": "can give another answer for the same rows",
    "error('it is ' || PatientID)": "can give another answer",
    "current_setting('threads') = '1'": "can give another answer",
    "Rows > 'abc'::DATE": "",
}
"""Conditions, with what is said of each."""


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_with_what_is_wrong(known, text):
    with pytest.raises(ConditionError) as refused:
        known.condition(text)
    assert REFUSED[text] in str(refused.value)


@pytest.mark.parametrize(
    "text", ["StudyDate = 'canary-71'::DATE", "PatientID = 'canary-71", "Rows > [71717]", "foo('canary-71', 71717)"]
)
def test_what_is_said_quotes_no_value(known, text):
    with pytest.raises(ConditionError) as refused:
        known.condition(text)
    assert "canary" not in str(refused.value)
    assert "71717" not in str(refused.value)


def test_aggregates_are_for_groups(known):
    groups = ("source", "study_key", "StudyInstanceUID")
    assert known.condition("count(DISTINCT PatientID) <= 1", groups).columns == {"PatientID"}
    with pytest.raises(ConditionError, match="GROUP BY"):
        known.condition("PatientID = 'x'", groups)


def test_the_database_reads_no_file_and_nobody_unlocks_it(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with locked(duckdb.connect()) as connection:
        for sql in (f"FROM read_csv('{tmp_path}/secret.csv')", "SET enable_external_access = true", "LOAD httpfs",
                    f"COPY (SELECT 1) TO '{tmp_path}/out.csv'", f"ATTACH '{tmp_path}/x.duckdb'"):  # fmt: skip
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_a_value_that_does_not_fit_is_told_without_it():
    with locked(duckdb.connect()) as connection:
        connection.execute("CREATE TABLE rows_ AS SELECT 'canary-71' AS PatientID")
        with pytest.raises(Unasked, match="ConversionException") as unasked:
            ask(connection, "SELECT 1 FROM rows_ WHERE NOT (PatientID::INT > 1)", 60)
        assert "canary" not in str(unasked.value)


def test_a_condition_that_takes_too_long_is_broken_off():
    with locked(duckdb.connect()) as connection, pytest.raises(Unasked, match="longer than"):
        ask(connection, "SELECT count(*) FROM range(100000000000) AS a(n) WHERE hash(n) = 1", 0.05)
