"""What only the sources can tell: objects that were overwritten unnoticed, and those that cannot be read again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner, Result

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.verification.digests import compare
from dicom_assets.batch.verification.findings import Finding
from dicom_assets.batch.verification.verify import Verified, verify
from dicom_assets.cli.main import app
from dicom_assets.defs import mending
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, contents, table
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.states import States
from dicom_assets_tests.support.steps import Stepped, step_through, without_graph


def one_batch(graph: Stepped, landing: LandingFolder) -> None:
    """A batch of two files, and of an archive with one object and one other file."""
    landing.put_series(1, 1, 2)
    landing.put_zip("more.zip", {"1.dcm": dicom(2, 1, 1), "notes.txt": b"notes"})
    step_through(graph, judges=False)


@pytest.fixture
def begun(states: States) -> tuple[Stepped, LandingFolder]:
    """That batch in a lake, and the folder that it came from."""
    graph, landing, _ = states.begin(one_batch)
    return graph, landing


@pytest.fixture
def taken(begun: tuple[Stepped, LandingFolder]) -> Stepped:
    """The lake."""
    return begun[0]


@pytest.fixture
def landing(begun: tuple[Stepped, LandingFolder]) -> LandingFolder:
    """The folder."""
    return begun[1]


def digests(graph: Graph) -> Finding:
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        (found,) = compare(work, [claim.batch_id for claim in work.log.claims()])
    assert [path for path in (Path(graph.settings.lake) / "_staging").rglob("*") if path.is_file()] == []
    return found


def unnoticed(path: Path, data: bytes) -> None:
    """Overwrites a file by bytes of the same size, and gives it the same time."""
    before = path.stat()
    assert len(data) == before.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_sources_that_are_as_they_were_differ_in_nothing(taken):
    found = digests(taken)
    assert (found.holds, found.told) == (True, "")


def test_a_file_that_was_overwritten_by_one_of_the_same_size_and_time_is_named(taken, landing):
    unnoticed(landing.root / "study1/series1/0001.dcm", dicom(1, 1, 1, PatientID="P9999"))
    found = digests(taken)
    (row,) = taken.rows("SELECT object_id, batch_id FROM flat_metadata WHERE uri LIKE '%0001.dcm'")
    assert (found.differing, list(found.shown), list(found.batches)) == (1, [row["object_id"]], [row["batch_id"]])


def test_headers_of_an_earlier_form_are_not_compared_and_that_is_said(taken):
    earlier = {"header_form": "NULL", "content_digest": "'of another form'"}
    DeltaTable(taken.lake.location("flat_metadata")).update(earlier, predicate="uri LIKE '%0001.dcm'")
    found = digests(taken)
    assert (found.holds, found.told) == (True, "1 objects have headers of an older form and were not compared")


def test_a_member_of_an_archive_that_was_overwritten_is_named(taken, landing):
    path = landing.root / "more.zip"
    unnoticed(path, _same_size(path.stat().st_size))
    assert digests(taken).differing == 1


def _same_size(wanted: int) -> bytes:
    """An archive with another patient, of so many bytes."""
    for number in range(10_000):
        made = zipped({"1.dcm": dicom(2, 1, 1, PatientID=f"Q{number:04d}"), "notes.txt": b"notes"})
        if len(made) == wanted:
            return made
    raise AssertionError("no archive of this size was made")


def test_objects_that_are_gone_are_counted_and_not_compared(taken, landing):
    (landing.root / "study1/series1/0001.dcm").unlink()
    found = digests(taken)
    assert found.holds
    assert found.told == "1 objects are not there as claimed and were not compared"
    landing.root.rename(landing.root.with_name("away"))
    found = digests(taken)
    assert found.holds
    assert found.told == "3 objects are not there as claimed and were not compared"


@pytest.mark.slow
def test_the_command_reads_again_and_makes_again_what_differs(taken, landing, monkeypatch):
    monkeypatch.chdir(landing.root.parent)
    where = ("--landing", str(landing.root), "--lake", taken.settings.lake)

    def verified(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["verify", *arguments, *where])

    unnoticed(landing.root / "study1/series1/0001.dcm", dicom(1, 1, 1, PatientID="P9999"))
    assert verified().exit_code == 0
    named = command("dicom-assets", "verify", "--digests", *where, cwd=landing.root.parent)
    assert named.returncode == 1
    assert "digests" in named.stdout
    assert "DIFFERS" in named.stdout
    for word in ("P9999", "P0001", ".dcm"):
        assert word not in named.stdout + named.stderr
    fixed = verified("--digests", "--fix")
    assert fixed.exit_code == 0, fixed.output
    ids = table(taken.lake, "instance")["PatientID"].to_pylist()
    assert sorted(ids) == ["P0001", "P0002", "P9999"]
    unknown = verified("--batch", "20260101T000000Z-00000000")
    assert unknown.exit_code == 2
    assert "No batch '20260101T000000Z-00000000' is claimed" in unknown.stderr


def mended(graph: Graph, found: Verified | None = None) -> bool:
    """Whether `--fix` sets all right. found: what differs, if known."""
    with (
        pytest.MonkeyPatch.context() as patch,
        dg.DagsterInstance.ephemeral() as instance,
        RunContext(graph.settings, shared_engine=InlineEngine()) as work,
        work.claiming(1),
    ):
        without_graph(patch, mending)
        return mending.mend(work, instance, found=found).holds


@pytest.mark.slow
def test_what_cannot_be_read_again_keeps_what_was_read_of_it(taken, landing):
    before = contents(taken.lake, ["flat_metadata", "instance"])
    DeltaTable(taken.lake.location("ingestion_errors")).delete()
    shutil.rmtree(landing.root / "study1")
    assert mended(taken)
    assert contents(taken.lake, ["flat_metadata", "instance"]) == before
    told = contents(taken.lake, ["ingestion_errors"])["ingestion_errors"]
    assert [row["code"] for row in told if row["severity"] == "warning"] == ["GONE_SINCE_READ"] * 2


@pytest.mark.slow
def test_a_place_that_was_claimed_again_and_is_not_known_as_such_is_named_and_entered(taken, landing):
    landing.put("study1/series1/0001.dcm", dicom(1, 1, 1, SeriesDescription="newer"), age_seconds=3_600)
    (batch,) = step_through(taken, judges=False)
    expected = contents(taken.lake)
    DeltaTable(taken.lake.location("overwritten")).delete()
    found = verify(taken.lake, taken.settings)
    assert {one.rule: list(one.batches) for one in found.findings if not one.holds}["overwritten"] == [batch]
    assert mended(taken, found)
    assert contents(taken.lake) == expected
