"""What is broken in a lake by hand is named by its rule, and `--fix` brings back exactly what was there."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_assets.batch.verification.file_rules import Strangers
from dicom_assets.batch.verification.findings import Finding
from dicom_assets.batch.verification.lines import Lines
from dicom_assets.batch.verification.verify import Verified
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.verification.conftest import Broken


def delete(broken: Broken, table: str, where: str) -> None:
    """Deletes rows behind the lake's back."""
    told = DeltaTable(broken.lake.location(table)).delete(where)
    assert told["num_deleted_rows"] > 0, "the test breaks something"


def change(broken: Broken, table: str, column: str, value: str, where: str = "true", **others: str) -> None:
    """Changes values behind the lake's back."""
    told = DeltaTable(broken.lake.location(table)).update({column: value, **others}, predicate=where)
    assert told["num_updated_rows"] > 0, "the test breaks something"


def twice(broken: Broken, table: str) -> None:
    """Doubles the rows of a batch's or study's file."""
    lake, key = broken.lake, TABLES[table].replaced_by
    with connect(lake, [table]) as connection:
        rows = arrow(connection, f"SELECT * FROM {table}").cast(TABLES[table].schema)
    values = rows[key].unique().to_pylist()
    with lake.committing(table):
        lake.replace(table, values, pa.concat_tables([rows, rows.slice(0, 1)]))


def one(table: str, column: str = "object_id", where: str = "true") -> Callable[[Broken], str]:
    """A condition that picks one row."""

    def condition(broken: Broken) -> str:
        with connect(broken.lake, [table]) as connection:
            first = connection.sql(f"SELECT min({column}) FROM {table} WHERE {where}").fetchall()[0][0]
        return f"{column} = {quoted(str(first))}"

    return condition


def study_of(broken: Broken, patient: str) -> str:
    """The study_key of a patient's study as SQL."""
    with connect(broken.lake, ["study"]) as connection:
        ((key,),) = connection.execute("SELECT study_key FROM study WHERE PatientID = ?", [patient]).fetchall()
    return quoted(str(key))


def lines_of(broken: Broken, batch: int) -> Path:
    """The NDJSON file of a batch."""
    (path,) = broken.root.glob(f"Process/**/ImagingStudy-{broken.batches[batch]}-*.ndjson")
    return path


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Changes the lines of a file."""
    path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")


def files_of(broken: Broken) -> dict[str, bytes]:
    """The NDJSON files of the lake."""
    return {path.name: path.read_bytes() for path in broken.root.glob("Process/**/*.ndjson")}


INGESTED = "kind = 'dicom' AND outcome = 'ingested'"

BREAKS: dict[str, tuple[str, Callable[[Broken], None]]] = {
    "a file that was claimed has no row": ("claimed", lambda b: delete(
        b, "raw_files", one("raw_files", where="member IS NULL AND kind = 'dicom'")(b))),
    "a file has two rows": ("claimed", lambda b: twice(b, "raw_files")),
    "a member has no row": ("judged", lambda b: delete(
        b, "raw_files", one("raw_files", where="member IS NOT NULL")(b))),
    "an archive has no row": ("members", lambda b: delete(b, "raw_files", "kind = 'archive'")),
    "an object has no outcome": ("judged", lambda b: delete(
        b, "validated_batch", one("validated_batch", where=INGESTED)(b))),
    "an outcome is another one": ("books", lambda b: change(
        b, "validated_batch", "outcome", "'ignored'", one("validated_batch", where=INGESTED)(b))),
    "the books count one too many": ("books", lambda b: change(
        b, "batches", "ingested", "ingested + 1", f"batch_id = '{b.batches[0]}'")),
    "the books do not balance": ("books", lambda b: change(b, "batches", "seen", "seen + 1")),
    "a header is missing": ("metadata", lambda b: delete(b, "flat_metadata", one("flat_metadata")(b))),
    "all of a batch is missing": ("metadata", lambda b: delete(
        b, "flat_metadata", f"batch_id = '{b.batches[1]}'")),
    "a reason is missing": ("reasons", lambda b: delete(b, "ingestion_errors", "code = 'MISSING_IDENTITY'")),
    "a reason is another one": ("reasons", lambda b: change(
        b, "ingestion_errors", "code", "'EMPTY_FILE'", "code = 'MISSING_IDENTITY'")),
    "a clinical record is missing": ("clinical", lambda b: delete(b, "clinical", "PatientID = '0007'")),
    "the index misses a study": ("indexed", lambda b: delete(b, "batch_study", one("batch_study", "study_key")(b))),
    "a report is missing": ("reports", lambda b: delete(b, "diagnostic_report", "true")),
    "an instance is missing": ("instance", lambda b: delete(b, "instance", one("instance")(b))),
    "an instance says something else": ("instance", lambda b: change(
        b, "instance", '"SeriesDescription"', "'x'", one("instance")(b))),
    "a header says something else": ("instance", lambda b: change(
        b, "flat_metadata", '"PatientID"', "'x'", one("flat_metadata")(b))),
    "a series is missing": ("series", lambda b: delete(b, "series", one("series")(b))),
    "a series counts one too many": ("series", lambda b: change(
        b, "series", "instance_count", "instance_count + 1", one("series")(b))),
    "a series says something else": ("series", lambda b: change(b, "series", '"Modality"', "'MR'")),
    "a study counts one series too many": ("study", lambda b: change(
        b, "study", "series_count", "series_count + 1", one("study")(b))),
    "a study has another patient": ("patients", lambda b: change(b, "study", '"PatientID"', "'x'", one("study")(b))),
    "a report is linked to a study of another patient": ("linked_reports", lambda b: change(
        b, "diagnostic_report", "study_key", study_of(b, "P0002"), study_keys=f"make_array({study_of(b, 'P0002')})")),
    "a study stands twice": ("study", lambda b: twice(b, "study")),
    "a study has no FHIR resource": ("imaging_study", lambda b: delete(
        b, "imaging_study", one("imaging_study", "study_key")(b))),
    "a series has no OMOP row": ("image_occurrence", lambda b: delete(
        b, "image_occurrence", "image_occurrence_id = 1")),
    "a series has no geometry": ("series_geometry", lambda b: delete(b, "series_geometry", "true")),
    "an OMOP row has no origin": ("image_occurrence", lambda b: delete(
        b, "image_occurrence_origin", "image_occurrence_id = 1")),
    "an id of OMOP is forgotten": ("identifiers", lambda b: delete(
        b, "omop_identifier", "domain = 'image_occurrence' AND id = 5")),
    "a batch has no books": ("unbooked", lambda b: delete(b, "batches", f"batch_id = '{b.batches[0]}'")),
    "rows of a batch that nobody claimed": ("unclaimed", lambda b: b.lake.replace(
        "ingestion_errors", ["20260101T000000Z-00000000"], stranger())),
    "something is staged of a closed batch": ("staging", lambda b: b.lake.files.put(
        f"_staging/{b.batches[0]}/touched_studies/000000.arrow", b"x") and None),
    "an NDJSON file is gone": ("lines", lambda b: lines_of(b, 0).unlink()),
    "an NDJSON file is empty": ("lines", lambda b: lines_of(b, 0).write_text("") and None),
    "an NDJSON file is cut": ("lines", lambda b: os.truncate(lines_of(b, 0), lines_of(b, 0).stat().st_size - 9)),
    "a line is missing": ("lines", lambda b: rewrite(lines_of(b, 0), lambda lines: lines[1:])),
    "a line stands twice": ("lines", lambda b: rewrite(lines_of(b, 0), lambda lines: [*lines, lines[0]])),
    "a line says something else": ("lines", lambda b: rewrite(
        lines_of(b, 1), lambda lines: [line.replace('"available"', '"cancelled"') for line in lines])),
    "a line is of a study that is not there": ("lines", lambda b: rewrite(
        lines_of(b, 0), lambda lines: [*lines, '{"resourceType":"ImagingStudy","id":"x"}\n'])),
    "an NDJSON file is of no batch": ("lines", lambda b: shutil.copy(lines_of(b, 0), Path(
        str(lines_of(b, 0)).replace(b.batches[0], "20260101T000000Z-00000000"))) and None),
}  # fmt: skip
"""What is done to the lake, by what it is; and the rule that must name it."""


def stranger() -> pa.Table:
    row = {"batch_id": "20260101T000000Z-00000000", "object_id": "0" * 20, "stage": "read", "code": "EMPTY_FILE",
           "record": 0, "severity": "error", "occurred_at": 0}  # fmt: skip
    return pa.Table.from_pylist([row], schema=TABLES["ingestion_errors"].schema)


def test_an_untouched_lake_differs_in_nothing(broken):
    found = broken.verify()
    assert [one.rule for one in found.findings if not one.holds] == []
    assert found.holds


ALSO = {
    "a file that was claimed has no row": {"judged"},
    "a file has two rows": {"judged"},
    "an archive has no row": {"claimed", "judged"},
    "an object has no outcome": {"books", "metadata"},
    "an outcome is another one": {"metadata", "reasons"},
    "a header is missing": {"digests", "instance", "uids"},
    "all of a batch is missing": {"digests", "instance", "uids"},
    "the index misses a study": {"lines"},
    "an instance is missing": {"modalities", "patient_value", "series", "study"},
    "an instance says something else": {"conflict", "series"},
    "a series is missing": {"coverage", "image_occurrence"},
    "a study counts one series too many": {"imaging_study"},
    "a study stands twice": {"imaging_study", "modalities", "patients"},
    "a study has no FHIR resource": {"lines"},
}  # fmt: skip
"""Further rules that a break may go against, whichever object it meets."""

NAMED = {
    "one": ("a file that was claimed has no row", "an outcome is another one", "a clinical record is missing",
            "a report is missing", "an instance says something else", "an NDJSON file is gone"),
    "two": ("a file has two rows", "the books count one too many", "a header is missing", "a reason is missing",
            "a series says something else", "an NDJSON file is empty"),
    "three": ("a member has no row", "the books do not balance", "all of a batch is missing", "a reason is another one",
              "the index misses a study", "a study has no FHIR resource"),
    "four": ("an archive has no row", "a header says something else", "an NDJSON file is cut"),
    "five": ("an object has no outcome", "a line is missing"),
    "six": ("an instance is missing", "a report is linked to a study of another patient", "a series has no OMOP row",
            "a study has another patient", "a series has no geometry", "a line says something else"),
    "seven": ("a series is missing", "a study counts one series too many", "a line stands twice"),
    "eight": ("a series counts one too many", "a study stands twice", "an OMOP row has no origin",
              "a line is of a study that is not there"),
    "nine": ("an id of OMOP is forgotten", "rows of a batch that nobody claimed",
             "something is staged of a closed batch", "an NDJSON file is of no batch"),
    "ten": ("a batch has no books",),
}  # fmt: skip
"""Breaks that are looked at together: no rule that one of them must name is gone against by another one, so that each
is named for itself."""


def own(name: str) -> set[str]:
    """The rules that a break goes against."""
    return {BREAKS[name][0], *ALSO.get(name, ())}


def test_each_break_is_named_where_no_other_one_goes_against_its_rule():
    assert sorted(itertools.chain(*NAMED.values())) == sorted(BREAKS)
    for names in NAMED.values():
        for name, other in itertools.permutations(names, 2):
            assert BREAKS[name][0] not in own(other), (name, other)


def mostly_slow(names: Iterable[str], quick: str) -> list[Any]:
    """Names to parametrise by. A look at a whole broken lake takes a second: a quick run takes one of them."""
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def will_be_made_again(found: Finding) -> bool:
    """Whether there is something that `--fix` does of it."""
    return bool(found.batches or found.studies or isinstance(found, (Lines, Strangers)) or found.rule == "staging")


@pytest.mark.parametrize("names", mostly_slow(NAMED, "five"))
def test_what_is_broken_is_named_and_will_be_made_again(broken, names):
    for name in NAMED[names]:
        BREAKS[name][1](broken)
    differing = {one.rule: one for one in broken.looked().findings if not one.holds}
    assert set(differing) <= set().union(*map(own, NAMED[names])), "see ALSO"
    for name in NAMED[names]:
        assert BREAKS[name][0] in differing, name
        assert will_be_made_again(differing[BREAKS[name][0]]), name


MENDED = {
    "rows of batches": [name for name, (rule, _) in BREAKS.items() if rule in {
        "claimed", "judged", "members", "books", "metadata", "reasons", "clinical", "indexed", "reports", "instance"}
        and name not in ("an instance is missing", "a reason is another one")],
    "studies": ["a report is linked to a study of another patient", "an instance is missing", *(
        name for name, (rule, _) in BREAKS.items() if rule in {
            "series", "study", "series_geometry", "patients", "imaging_study", "image_occurrence"})],
    "books": ["a batch has no books", "a reason is another one"],
    "what is of no table": ["an id of OMOP is forgotten", "rows of a batch that nobody claimed",
                            "something is staged of a closed batch", "an NDJSON file is of no batch",
                            "an NDJSON file is gone"],
    "lines": ["a line is of a study that is not there", "a line says something else"],
}  # fmt: skip
"""Breaks that are mended at once: none of them hides that another one is not. Lines that differ are written again all
alike, whatever is wrong with them, so some of their breaks do."""


def test_each_break_is_mended_somewhere():
    lines = {name for name, (rule, _) in BREAKS.items() if rule == "lines"}
    assert {*BREAKS} - lines <= {*itertools.chain(*MENDED.values())}


@pytest.mark.slow
@pytest.mark.parametrize("group", MENDED)
def test_what_is_broken_is_made_again_exactly_as_it_was(broken, group):
    lines = files_of(broken)
    for name in MENDED[group]:
        BREAKS[name][1](broken)
    found = broken.looked()
    if group == "studies":
        assert found.batches == [], "a batch that is run again would make its studies again, too"
    if group == "what is of no table":
        assert found.batches == [broken.batches[1]], "a batch that is run again clears its staging and writes its lines"
    assert_mended(broken, lines, found)


def assert_mended(broken: Broken, lines: dict[str, bytes], found: Verified) -> None:
    """`--fix` leaves the lake as it was; lines: its NDJSON files. found: what differs."""
    left = broken.mend(found)
    assert [(one.rule, one.shown) for one in left.findings if not one.holds] == []
    now = broken.contents()
    for table, rows in broken.expected.items():
        assert now[table] == rows, table
    assert [path for path in (broken.root / "_staging").rglob("*") if path.is_file()] == []
    last = lines_of(broken, 1).name  # files of batches before may say of a study what was not known then
    assert files_of(broken).keys() == lines.keys()
    assert files_of(broken)[last] == lines[last]


def without(rows: list[dict[str, Any]], columns: set[str]) -> list[dict[str, Any]]:
    """Rows without some columns."""
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


LOST = {
    "rows": {"raw_files": "gone", "flat_metadata": "empty", "clinical": "cut", "instance": "gone"},
    "books and ids": {"batches": "empty", "omop_identifier": "cut"},
}
"""A table of each kind: by batch, with headers, with records, by study; the books, and ids that were given out."""


@pytest.mark.slow
@pytest.mark.parametrize("what", LOST)
def test_data_files_that_are_lost_are_named_and_their_rows_are_made_again(broken, what):
    for table, how in LOST[what].items():
        path = max(map(Path, broken.lake.table(table).file_uris()))
        if how == "gone":
            path.unlink()
        else:
            os.truncate(path, 0 if how == "empty" else path.stat().st_size // 2)
    found = broken.looked()
    (named,) = [one for one in found.findings if one.rule == "files"]
    assert named.differing == len(LOST[what])
    assert sorted(named.told.split(", ")) == sorted(f"1 of {table}" for table in LOST[what])
    assert broken.mend(found).holds
    now = broken.contents()
    assert {row["batch_id"] for row in now["omop_identifier"]} <= {*broken.batches}
    for name, rows in broken.expected.items():
        # An id is of the batch that has given it out again: one of those that brought its study.
        left_out = {"batch_id"} if name == "omop_identifier" else set()
        assert without(now[name], left_out) == without(rows, left_out), name


def test_an_older_line_of_a_study_may_say_less_than_its_row(broken):
    """The second batch has added a series to a study of the first one, whose line stays as it was.

    Of that lake `test_an_untouched_lake_differs_in_nothing` says that every rule holds.
    """
    first, second = (lines_of(broken, batch).read_text(encoding="utf-8").splitlines() for batch in (0, 1))
    (line,) = second
    same = [one for one in first if json.loads(one)["id"] == json.loads(line)["id"]]
    assert same and line not in first


@pytest.mark.slow
def test_one_batch_alone_is_looked_at(broken):
    first, second = broken.batches
    rewrite(lines_of(broken, 0), lambda lines: [*lines, lines[0]])
    delete(broken, "ingestion_errors", f"batch_id = '{second}'")
    assert [one.rule for one in broken.verify(first).findings if not one.holds] == ["lines"]
    found = broken.verify(second)
    assert [one.rule for one in found.findings if not one.holds] == ["reasons"]
    assert found.batches == [second]
    rewrite(lines_of(broken, 0), lambda lines: lines[:-1])
    assert broken.verify(first).holds


def test_what_an_open_batch_touches_is_left_out(broken):
    change(broken, "batches", "status", "'open'", f"batch_id = '{broken.batches[1]}'")
    delete(broken, "instance", f"batch_id = '{broken.batches[1]}'")
    found = broken.verify()
    assert found.holds
    assert [one.shown for one in found.findings if one.rule == "open"] == [[broken.batches[1]]]


def test_names_are_ids_alone(broken):
    for table in ("raw_files", "validated_batch", "ingestion_errors"):
        delete(broken, table, "true")
    delete(broken, "study", "true")
    told = repr([(one.shown, one.told, one.batches) for one in broken.verify().findings])
    for word in ("P0001", "Test^", ".dcm", "1.2.826", "landing"):
        assert word not in told
