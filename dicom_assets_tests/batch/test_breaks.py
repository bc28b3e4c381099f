"""A table of breaks: how the code of each step is broken, and which blocking rule must catch it.

Belongs here: whole steps run with one function broken, on a small batch of everything. Does not belong here: rows that
are broken after a sound run (`test_checks`). A step that publishes without a break of its own fails a test below.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from dicom_assets.batch import books, clinical, publish, standards
from dicom_assets.batch import context as work
from dicom_assets.batch.checks.rules import ALL_RULES
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.promotion import promote
from dicom_assets.clinical import delimited
from dicom_assets.curation import digest_index, duplicates, stacks
from dicom_assets.dicom import columns, from_header
from dicom_assets.dicom.header import NotDicom
from dicom_assets.lake import hierarchy
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.rewrite import get_file
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.landing.claims import claim_new
from dicom_assets.reading import judge, kinds, listing, staged_rows
from dicom_assets.settings import ColumnSettings
from dicom_assets.storage.files import arrow_bytes
from dicom_assets_tests.batch import test_checks
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.steps import failures, steps

PATIENT = '{"resourceType":"Patient","id":"p1","identifier":[{"system":"urn:oid:1.2.3","value":"P0001"}]}'
REPORTS = "\n".join(
    f'{{"resourceType":"DiagnosticReport","id":"r{n}","status":"final","code":{{"text":"CT"}},'
    f'"subject":{{"reference":"Patient/p1"}}}}'
    for n in range(3)
)
PROMOTED = (
    ColumnSettings(path="SeriesDescription", name="described", level="series"),
    ColumnSettings(path="InstanceNumber", name="place_in_series"),
)
TABLE = "PatientID;diagnosis\n" + "".join(f"P000{n};R9{n}\n" for n in range(1, 7))


def put_everything(folder: Path) -> LandingFolder:
    """A batch of everything: three patients, versions of one instance, members of nested zips, tables, FHIR, flaws."""
    folder.mkdir()
    landing = LandingFolder(folder)
    for number in (1, 2):
        landing.put(f"a/{number}.dcm", dicom(1, 1, number), age_seconds=90_000 + number)
    landing.put("a/old.dcm", dicom(2, 1, 1, SeriesDescription="old", BodyPartExamined="HEAD"), age_seconds=99_000)
    landing.put("a/new.dcm", dicom(2, 1, 1, SeriesDescription="new"), age_seconds=95_000)
    landing.put("a/nobody.dcm", dicom(3, 1, 1, PatientID=None), age_seconds=96_000)
    inner = zipped({"deep/1.dcm": dicom(3, 2, 1), "deep/2.txt": b"text"})
    landing.put_zip("b/all.zip", {"1.dcm": dicom(4, 1, 1), "2.dcm": dicom(4, 1, 2), "inner.zip": inner})
    for place in range(3):
        position = {"ImagePositionPatient": [0, 0, place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        landing.put(f"a/slice{place}.dcm", dicom(6, 1, place + 1, Rows=4, Columns=4, **position))
    landing.put("a/several.dcm", dicom(5, 1, 1, PatientID="CR3\\TEST1"))
    landing.put("c/diagnoses.csv", TABLE)
    landing.put("c/fhir.ndjson", f"{PATIENT}\n{REPORTS}\n")
    landing.put("d/odd.dcm", without_identity())
    landing.put("d/readme.txt", "nothing to see here\n")
    return landing


@pytest.fixture(scope="module")
def claimed(tmp_path_factory) -> Path:
    """A lake with one claimed batch."""
    folder = tmp_path_factory.mktemp("claimed")
    landing = put_everything(folder / "landing")
    with RunContext(settings_for(folder / "lake", landing.root)) as own:
        promote(own.lake, own.settings.model_copy(update={"columns": PROMOTED}))
        claim_new(own.stores()[0], own.log, own.settings.claiming)
    return folder


READ_IN = {"flat_metadata": "validated_batch", "batch_study": "flat_metadata"}
"""By the step of a fault, the one in which the fault may do something first, where that is another one."""


@pytest.fixture(scope="module")
def before(claimed) -> dict[str, Path]:
    """The lake before each step but the first one."""
    whole = Path(shutil.copytree(claimed / "lake", claimed / "whole"))
    found: dict[str, Path] = {}
    with RunContext(settings_for(whole, claimed / "landing"), shared_engine=InlineEngine()) as own:
        (claim,) = own.log.claims()
        for (name,), make in steps(own.batch(claim.batch_id)):
            if name != "raw_files":
                found[name] = Path(shutil.copytree(whole, claimed / f"before-{name}"))
            make()
    return found


def run(claimed: Path, lake: Path, begin: str | None = None, **sections: Any) -> dict[str, Any]:
    """The batch through all steps, or from one on, until rules do not hold; these, by name."""
    settings = settings_for(lake, claimed / "landing", **sections)
    with RunContext(settings, shared_engine=InlineEngine()) as own:
        (claim,) = own.log.claims()
        return failures(own.batch(claim.batch_id), begin=begin)


@dataclass(frozen=True)
class Break:
    """One deliberate fault. step: what publishes or reads wrongly. caught_by: the rule that must say so."""

    step: str
    name: str
    caught_by: str
    do: Callable[[pytest.MonkeyPatch], None]


def around(owner: object, name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes what a function gives back."""

    def do(patch: pytest.MonkeyPatch) -> None:
        before = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **kwargs: change(before(*args, **kwargs)))

    return do


def instead(owner: object, name: str, other: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Puts another function in its place, which gets the one that was there first."""

    def do(patch: pytest.MonkeyPatch) -> None:
        before = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **kwargs: other(before, *args, **kwargs))

    return do


def staged(part: Part, change: Callable[[pa.Table], pa.Table]) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes rows of a part as they are read, before they are staged."""

    def changed(parts: Any) -> Any:
        for to, arrow in parts:
            yield to, arrow_bytes(change(pa.ipc.open_file(arrow).read_all())) if to is part else arrow

    return around(judge, "part_files", changed)


def written(table: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes rows of a table on their way into it."""

    def do(patch: pytest.MonkeyPatch) -> None:
        before = Lake.replace

        def put(self: Lake, name: str, keys: Any, rows: Any) -> Any:
            if name == table:
                given = rows() if callable(rows) else rows
                if not isinstance(given, pa.Table):
                    parts = [*given]
                    given = (
                        pa.concat_tables([get_file(self, self.tables[table], one.path) for one in parts])
                        if parts and hasattr(parts[0], "path")
                        else pa.Table.from_batches(parts, parts[0].schema if parts else self.tables[table].schema)
                    )
                whole = given
                rows = change(whole).cast(whole.schema)
            return before(self, name, keys, rows)

        patch.setattr(Lake, "replace", put)

    return do


def with_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    """Changes the values of one column."""

    def apply(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(name)
        values = pa.array(change(rows[name].to_pylist()), rows.schema.field(name).type)
        return rows.set_column(place, rows.schema.field(name), values)

    return apply


def one_more(values: list[Any]) -> list[Any]:
    return [None if value is None else value + 1 for value in values]


def turned(values: list[Any]) -> list[Any]:
    """Each neighbour gets the other's value."""
    return values[1:] + values[:1]


def half(rows: pa.Table) -> pa.Table:
    return rows.slice(0, len(rows) // 2)


def drop_first(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


def without_a_member(before: Any, source: Any, *rest: Any) -> Any:
    return iter([*before(source, *rest)][1:])


def no_innermost(before: Any, source: Any, *rest: Any) -> Any:
    return (member for member in before(source, *rest) if len(member.entry) == 1)


def half_of_records(frames: Any) -> Any:
    return (replace(frame, rows=frame.rows[::2], numbers=frame.numbers[::2]) for frame in frames)


def called_something_else(found: Any) -> Any:
    return replace(found, code="NOT_DICOM") if found.kind == "dicom" else found


def nothing_is_dicom(before: Any, *args: Any) -> Any:
    raise NotDicom


def swapped(name: str) -> Callable[[list[Any]], list[Any]]:
    """Gives the first header with a value that of the first one with another, and back: in columns alone."""

    def change(headers: list[Any]) -> list[Any]:
        for header in headers:
            other = next((h for h in headers if h.columns.get(name) != header.columns.get(name)), None)
            if other is not None:
                mine, its = header.columns.get(name), other.columns.get(name)
                header.columns[name], other.columns[name] = its, mine
                break
        return headers

    return change


def columns_swapped(before: Any, headers: Any) -> Any:
    return before(swapped("PatientID")(list(headers)))


def neighbours_read(before: Any, chunk: Any, accepted: Any) -> Any:
    """Each object gets what its neighbour says: header, columns and all."""
    sound = [entry for entry in accepted if not entry[1].issues]
    others = turned([header for _, header, _ in sound])
    mixed = [(task, other, version) for (task, _, version), other in zip(sound, others, strict=True)]
    return before(chunk, mixed + [entry for entry in accepted if entry[1].issues])


def constant_time(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"modified_at": datetime(2020, 1, 1, tzinfo=UTC)}


def one_left_out(before: Any, manifest: pa.Table, *args: Any) -> Any:
    return before(manifest.slice(1), *args)


def rebuilds_with(patch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Has the SQL of one table of the hierarchy say something else."""
    right = hierarchy.rebuild_sql

    def broken(table: str, choice: Any) -> str:
        sql = right(table, choice)
        if table == name:
            assert old in sql
        return sql.replace(old, new) if table == name else sql

    patch.setattr(publish, "rebuild_sql", broken)


def oldest_first(patch: pytest.MonkeyPatch) -> None:
    rebuilds_with(patch, "instance", " DESC", " ASC")


def any_value_of_series(patch: pytest.MonkeyPatch) -> None:
    rebuilds_with(patch, "series", "arg_max(", "arg_min(")


def missing_contradicts(patch: pytest.MonkeyPatch) -> None:
    rebuilds_with(patch, "study", "END AS patient_count", "END + count(*) FILTER (id IS NULL) AS patient_count")


def counted_wrongly(before: Any, lake: Any, batch_id: str) -> Any:
    found = dict(before(lake, batch_id))
    return found | {"ingested": found["ingested"] + 1, "ignored": found["ignored"] - 1}


def no_warnings(rows: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.not_equal(rows["severity"], "warning"))


def refused(code: str) -> Callable[..., Any]:
    """Quarantines all DICOM objects."""

    def read(before: Any, chunk: Any, task: Any, opened: Any, memo: Any) -> Any:
        if task.kind == "dicom":
            return judge.settled("dicom", code, None)
        return before(chunk, task, opened, memo)

    return read


def first_is_old(decisions: Any) -> Any:
    first = pa.Table.from_pylist([{"place": 0, "stays": False}], schema=decisions.changes.schema)
    return replace(decisions, changes=first)


def without_an_instance(resources: list[str]) -> list[str]:
    first = orjson.loads(resources[0])
    first["series"][0]["instance"].pop()
    return [orjson.dumps(first).decode(), *resources[1:]]


def of_another_object(rows: pa.Table) -> pa.Table:
    return rows.set_column(
        rows.schema.get_field_index("object_id"),
        rows.schema.field("object_id"),
        pa.array(["0" * 20] * len(rows), pa.string()),
    )


BREAKS = [
    Break("raw_files", "expand drops an object", "raw_files.equals_claim", instead(work, "expand", one_left_out)),
    Break("raw_files", "a member is dropped", "raw_files.members_equal_directories",
          instead(listing, "members", without_a_member)),
    Break("raw_files", "members of a nested zip are dropped", "raw_files.members_equal_directories",
          instead(listing, "members", no_innermost)),
    Break("raw_files", "modified_at is constant", "raw_files.equals_claim",
          around(listing._Listing, "_shared", constant_time)),
    Break("raw_files", "members have a time of their own", "raw_files.members_follow_containers",
          around(listing, "_member_row", constant_time)),
    Break("raw_files", "sizes are one too high", "raw_files.equals_claim",
          around(listing._Listing, "own", lambda row: row | {"size": row["size"] + 1})),
    Break("raw_files", "rows are lost in publishing", "raw_files.rows_published", written("raw_files", drop_first)),
    Break("raw_files", "every DICOM file is called something else", "validated_batch.refused_are_no_dicom",
          around(listing, "kind_of", called_something_else)),
    Break("validated_batch", "no DICOM file is recognised when it is read", "validated_batch.refused_are_no_dicom",
          instead(kinds, "read_header", nothing_is_dicom)),
    Break("validated_batch", "every DICOM file is called broken", "validated_batch.refused_are_no_dicom",
          instead(judge, "read_object", refused("UNPARSEABLE"))),
    Break("validated_batch", "every DICOM file makes the reader crash", "validated_batch.gate",
          instead(judge, "read_object", refused("PARSER_CRASH"))),
    Break("raw_files", "files are left out as a system's", "validated_batch.system_files_are_named_so",
          instead(listing, "is_system_file", lambda before, path: True)),
    Break("validated_batch", "records of a quarantined file are kept", "validated_batch.nothing_of_refused_is_staged",
          staged(Part.LEDGER, with_column("outcome", lambda values: ["quarantined" for _ in values]))),
    Break("validated_batch", "half of a table's records is dropped", "validated_batch.records_are_counted_again",
          around(delimited, "_frames", half_of_records)),
    Break("validated_batch", "a table gives no record and is ingested all the same",
          "validated_batch.ingested_have_rows", staged(Part.CLINICAL, lambda rows: rows.slice(0, 0))),
    Break("validated_batch", "outcomes are lost in publishing", "validated_batch.rows_published",
          written("validated_batch", drop_first)),
    Break("validated_batch", "codes are mixed up in publishing", "validated_batch.rows_published",
          written("validated_batch", with_column("code", turned))),
    Break("validated_batch", "warning rows are dropped", "validated_batch.issues_have_errors",
          staged(Part.ERRORS, no_warnings)),
    Break("validated_batch", "PatientIDs of records are mixed up", "validated_batch.patients_stand_in_records",
          staged(Part.CLINICAL, with_column("PatientID", turned))),
    Break("flat_metadata", "PatientIDs of neighbours are swapped", "flat_metadata.columns_equal_headers",
          instead(staged_rows, "dicom_columns", columns_swapped)),
    Break("flat_metadata", "neighbours are swapped, header and all", "flat_metadata.sample_equals_source",
          instead(staged_rows, "_flat_rows", neighbours_read)),
    Break("flat_metadata", "version_at is constant", "flat_metadata.equals_claim",
          around(staged_rows, "_own_version", lambda v: replace(v, version_at=datetime(2020, 1, 1, tzinfo=UTC)))),
    Break("flat_metadata", "a typed column is mixed up", "flat_metadata.sample_equals_source",
          around(staged_rows, "dicom_columns", lambda rows: with_column("SeriesDescription", turned)(
              pa.Table.from_batches([rows])).combine_chunks().to_batches()[0])),
    Break("flat_metadata", "rows are lost", "flat_metadata.equals_ledger", written("flat_metadata", drop_first)),
    Break("flat_metadata", "objects that claim one UID are not told", "ingestion_errors.same_uids_are_told",
          instead(work, "stage_same_uids", lambda before, lake, staging, run_id: 0)),
    Break("flat_metadata", "PatientIDs are cut at a backslash", "flat_metadata.columns_equal_headers",
          instead(columns, "_undivided", lambda before, tag, values: values[0])),
    Break("flat_metadata", "promoted columns of neighbours are swapped", "flat_metadata.promoted_equal_headers",
          around(from_header, "_found", lambda found: [turned(values) for values in found])),
    Break("study", "what is missing is a patient of its own", "study.equals_instances", missing_contradicts),
    Break("batch_study", "studies are missing in the index", "flat_metadata.studies_are_indexed",
          written("batch_study", drop_first)),
    Break("clinical", "records are lost in publishing", "clinical.records_accounted", written("clinical", half)),
    Break("clinical", "records are mixed up in publishing", "clinical.equals_staged",
          written("clinical", with_column("record_values", turned))),
    Break("clinical", "a record is taken for one that was replaced", "clinical.records_accounted",
          around(clinical, "decide", first_is_old)),
    Break("instance", "the oldest version wins", "instance.is_newest", oldest_first),
    Break("instance", "instances are lost", "instance.equals_flat_metadata", written("instance", drop_first)),
    Break("instance", "places are mixed up", "instance.is_newest", written("instance", with_column("uri", turned))),
    Break("series", "a count is one too high", "series.equals_instances",
          written("series", with_column("instance_count", one_more))),
    Break("series", "the oldest value wins", "series.equals_instances", any_value_of_series),
    Break("study", "a count of series is one too high", "study.equals_instances",
          written("study", with_column("series_count", one_more))),
    Break("study", "a count of patients is one too high", "study.equals_instances",
          written("study", with_column("patient_count", one_more))),
    Break("study", "patients are mixed up", "study.equals_instances",
          written("study", with_column("PatientID", turned))),
    Break("study", "modalities are forgotten", "study.equals_instances",
          written("study", with_column("ModalitiesInStudy", lambda values: [None for _ in values]))),
    Break("series_geometry", "a series is lost", "series_geometry.equals_series",
          written("series_geometry", drop_first)),
    Break("series_geometry", "slices are put into the wrong plane", "series_geometry.positions_equal_instances",
          instead(stacks, "_directions", lambda before, series, orientation: np.arange(len(series)))),
    Break("series_geometry", "distances are taken across the plane", "series_geometry.positions_equal_instances",
          instead(np, "cross", lambda before, first, second: first)),
    Break("conflict", "UIDs are missing in the index", "conflict.uids_are_indexed", written("uid_index", drop_first)),
    Break("conflict", "what a study says of its patient is lost", "conflict.patients_equal_instances",
          written("patient_value", drop_first)),
    Break("flat_metadata", "an object is not entered into the index of digests", "duplicate.digests_are_indexed",
          instead(digest_index, "keys_of", lambda before, rows: f"SELECT * FROM (FROM ({before(rows)}) OFFSET 1)")),
    Break("duplicate", "a member is another object", "duplicate.members_are_alike",
          around(duplicates, "_rows", of_another_object)),
    Break("duplicate", "a difference is not told", "duplicate.differences_are_told",
          around(duplicates, "differences", lambda told: {pair: names[1:] for pair, names in told.items()})),
    Break("ingestion_errors", "error rows are lost in publishing", "ingestion_errors.rows_published",
          written("ingestion_errors", no_warnings)),
    Break("imaging_study", "a study has no resource", "imaging_study.equals_studies",
          written("imaging_study", drop_first)),
    Break("imaging_study", "a resource is missing in the files", "imaging_study.files_equal_rows",
          instead(standards, "_write_ndjson",
                  lambda before, lake, staging, rows: before(lake, staging, rows.slice(1)))),
    Break("imaging_study", "resources are mixed up", "imaging_study.says_what_studies_say",
          written("imaging_study", with_column("resource", turned))),
    Break("imaging_study", "an instance is lost", "imaging_study.instances_add_up",
          written("imaging_study", with_column("resource", without_an_instance))),
    Break("diagnostic_report", "a report is lost", "diagnostic_report.equals_clinical",
          written("diagnostic_report", drop_first)),
    Break("diagnostic_report", "reports come to another patient", "diagnostic_report.says_what_records_say",
          written("diagnostic_report", with_column("PatientID", lambda values: ["P0002" for _ in values]))),
    Break("omop_identifier", "ids are lost", "omop_identifier.series_have_identifiers",
          written("omop_identifier", half)),
    Break("omop_identifier", "one id is given out twice", "omop_identifier.ids_are_unique",
          written("omop_identifier", with_column("id", lambda values: [abs(values[0]) for _ in values]))),
    Break("image_occurrence", "a series is lost", "image_occurrence_origin.equals_series",
          written("image_occurrence", drop_first)),
    Break("image_occurrence", "two patients are one person", "image_occurrence_origin.says_what_series_say",
          written("image_occurrence", with_column("person_id", lambda values: [-1 for _ in values]))),
    Break("image_occurrence", "dates are mixed up", "image_occurrence_origin.says_what_series_say",
          written("image_occurrence", with_column(
              "image_occurrence_date", lambda values: [datetime(2001, 1, 1, tzinfo=UTC).date() for _ in values]))),
    Break("image_occurrence_origin", "origins are lost", "image_occurrence_origin.equals_series",
          written("image_occurrence_origin", drop_first)),
    Break("mapping_coverage", "totals are one too high", "mapping_coverage.counts_every_row",
          written("mapping_coverage", with_column("total", one_more))),
    Break("cleanup", "outcomes are counted wrongly", "cleanup.books_equal_tables",
          instead(books, "counted", counted_wrongly)),
    Break("cleanup", "staging stays", "cleanup.staging_is_empty", instead(Staging, "remove", lambda before, self: 0)),
]  # fmt: skip
"""Each deliberate fault."""


@pytest.mark.slow
def test_code_that_is_not_broken_passes_every_rule(claimed, tmp_path):
    assert run(claimed, Path(shutil.copytree(claimed / "lake", tmp_path / "lake"))) == {}


ELSEWHERE = {
    "flat_metadata.overwrites_are_entered",
    *("correction.equals_staged", "correction.states_follow", "correction.studies_are_entered"),
    *("patient_link.follows_links", "validated_batch.house_rules", "conflict.equals_instances"),
}
"""Rules that need several batches to be broken, objects that contradict, or settings of their own: `test_overwritten`,
`test_corrections_in_any_order`, `test_conflicts_in_any_order` and `test_house_rules` break them."""


def test_each_blocking_rule_catches_a_fault():
    caught = {one.caught_by for one in BREAKS} | {*test_checks.BREAKS} | ELSEWHERE
    assert [name for rule in ALL_RULES if rule.blocking and (name := f"{rule.table}.{rule.name}") not in caught] == []


def test_each_step_that_publishes_has_a_fault():
    published = {*TABLES_OF_A_BATCH, "batch_study"} - {"correction", "patient_link"}
    assert sorted(published - {one.step for one in BREAKS}) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", BREAKS, ids=[f"{one.step}: {one.name}" for one in BREAKS])
def test_a_fault_is_caught_before_the_batch_goes_on(claimed, before, tmp_path, monkeypatch, fault: Break):
    step = READ_IN.get(fault.step, fault.step)
    begin = step if step in before else None
    lake = Path(shutil.copytree(before[begin] if begin else claimed / "lake", tmp_path / "lake"))
    fault.do(monkeypatch)
    found = run(claimed, lake, begin, checks={"sample_objects": 20})
    assert fault.caught_by in found, found
    if fault.step != "mapping_coverage" and fault.step != "cleanup":
        assert found[fault.caught_by].differing


def test_the_documentation_names_each_rule():
    text = (Path(__file__).parents[2] / "docs/checks.md").read_text(encoding="utf-8")
    assert [rule.name for rule in ALL_RULES if f"`{rule.name}`" not in text] == []
