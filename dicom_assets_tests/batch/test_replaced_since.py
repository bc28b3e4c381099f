"""A batch that is run again keeps what it brought of objects that were replaced at the source or are gone since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.batch import own_rows
from dicom_assets.batch.books import books_of
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.promotion import declare, fill
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import claim_new
from dicom_assets.schema.promoted import promoted
from dicom_assets.settings import Settings
from dicom_assets_tests.support import corrections
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, contents, make_asset, settings_for, table
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import failures, publish

PATIENT = '{"resourceType":"Patient","id":"p1","identifier":[{"value":"P0001"}]}\n'
CONDITION = '{"resourceType":"Condition","id":"c1","subject":{"reference":"Patient/p1"}}\n'
WRONG = '{"resourceType":"Condition"}\n'
MEMBERS = {
    "1.dcm": dicom(3, 1, 1),
    "flawed.dcm": dicom(3, 1, 2, PatientID=None),
    "bad.dcm": without_identity(),
    "notes.txt": b"notes",
    "in.csv": b"PatientID,x\nP0003,a\n",
}
OF_BATCHES = ("raw_files", "validated_batch", "flat_metadata", "clinical")
MADE_FROM_THEM = ("instance", "series", "study", "imaging_study", "image_occurrence")


@dataclass(frozen=True)
class Lakeside:
    """A landing folder with a lake, in which one batch is claimed."""

    settings: Settings
    landing: LandingFolder
    batch: str

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    def run_until(self, last: str) -> None:
        """A run that is killed after it has made a table; made once, where nothing was done before it."""
        kept = Path(f"{self.settings.lake}-until-{last}")
        if kept.exists():
            shutil.rmtree(self.settings.lake)
            shutil.copytree(kept, self.settings.lake)
            return
        self.run_anew_until(last)
        shutil.copytree(self.settings.lake, kept)

    def run_anew_until(self, last: str) -> None:
        """The same of a lake that is not as it was claimed."""
        with RunContext(self.settings, shared_engine=InlineEngine()) as work:
            for name in TABLES_OF_A_BATCH[: TABLES_OF_A_BATCH.index(last) + 1]:
                make_asset(name, self.batch, work)

    def run(self, *, judges: bool = False) -> None:
        """A whole run. judges: see `Stepped`."""
        with RunContext(self.settings, shared_engine=InlineEngine()) as work:
            publish(work.batch(self.batch), judges=judges)

    def codes(self) -> dict[str, set[str]]:
        """By name, what is told of an object or member."""
        found: dict[str, set[str]] = {}
        for row in table(self.lake, "ingestion_errors").to_pylist():
            found.setdefault(name_of(row), set()).add(row["code"])
        return found

    def outcomes(self) -> dict[str, str]:
        """By name, outcome or code."""
        places = {row["object_id"]: name_of(row) for row in table(self.lake, "raw_files").to_pylist()}
        rows = table(self.lake, "validated_batch").to_pylist()
        return {places[row["object_id"]]: row["code"] or row["outcome"] for row in rows}


def name_of(row: dict[str, Any]) -> str:
    return str(row["member"] or row["uri"].rpartition("/")[2])


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake in which one batch is claimed, and beside it the same lake with that batch closed."""
    folder = tmp_path_factory.mktemp("claimed")
    landing = LandingFolder(folder / "landing")
    landing.put("a.dcm", dicom(1))
    landing.put("stays.dcm", dicom(2))
    landing.put("odd.txt", "nothing to see here\n")
    landing.put("a.csv", "PatientID,x\nP0001,a\nP0002,b\n")
    landing.put("a.ndjson", PATIENT + CONDITION + WRONG)
    landing.put_zip("a.zip", MEMBERS)
    settings = settings_for(folder / "lake", landing.root)
    with RunContext(settings) as work:
        claim_new(work.stores()[0], work.log, settings.claiming)
    shutil.copytree(folder / "lake", folder / "closed")
    with RunContext(settings_for(folder / "closed", landing.root), shared_engine=InlineEngine()) as work:
        publish(work.batch(work.log.claims()[0].batch_id), judges=False)
    return folder


@pytest.fixture
def place(claimed: Path, monkeypatch: pytest.MonkeyPatch) -> Lakeside:
    """The claimed batch. The folder is the one that it was claimed from, since places are part of names."""
    for name in ("landing", "lake"):
        shutil.copytree(claimed / name, claimed / f"{name}.kept", dirs_exist_ok=True)
    settings = settings_for(claimed / "lake", claimed / "landing")
    with RunContext(settings) as work:
        (claim,) = work.log.claims()
    yield Lakeside(settings, LandingFolder(claimed / "landing"), claim.batch_id)
    for name in ("landing", "lake"):
        shutil.rmtree(claimed / name)
        (claimed / f"{name}.kept").rename(claimed / name)


@pytest.fixture(scope="module")
def expected(claimed: Path) -> dict[str, list[dict[str, Any]]]:
    """What the tables hold when nothing is cut off or changed."""
    return contents(Lake(str(claimed / "closed")), [*OF_BATCHES, *MADE_FROM_THEM, "batches"])


def everything_is_gone(landing: LandingFolder) -> None:
    """All but one file, so that the source does not look emptied."""
    for path in landing.root.iterdir():
        if path.name not in ("stays.dcm", "odd.txt", "a.ndjson"):
            path.unlink()


def everything_is_replaced(landing: LandingFolder) -> None:
    """By something of the same kind with another content."""
    landing.put("a.dcm", dicom(7), age_seconds=60)
    landing.put("a.csv", "PatientID,x\nP0001,c\n", age_seconds=60)
    landing.put("a.ndjson", PATIENT, age_seconds=60)
    landing.put_zip("a.zip", {"1.dcm": dicom(8, 1, 1), "another.dcm": dicom(8, 1, 2)}, age_seconds=60)


Change = Callable[[LandingFolder], None]


@pytest.mark.parametrize("change", [everything_is_gone, everything_is_replaced])
@pytest.mark.parametrize("last", ["clinical", pytest.param("cleanup", marks=pytest.mark.slow)])
def test_a_run_after_one_that_was_killed_ends_in_what_that_had_read(place, expected, change: Change, last):
    place.run_until(last)
    change(place.landing)
    place.run(judges=True)
    found = contents(place.lake, [*OF_BATCHES, *MADE_FROM_THEM, "batches"])
    for name in OF_BATCHES:
        assert found[name] == expected[name], name
    for name in MADE_FROM_THEM:
        assert strip(found[name]) == strip(expected[name]), name
    (books,), (whole,) = found["batches"], expected["batches"]
    untold = place.codes()["a.ndjson"] == {"GONE_SINCE_READ"}  # errors of records are published last
    assert books == {**whole, "clinical_records": whole["clinical_records"] - untold}
    assert (books["status"], books["seen"]) == ("closed", 11)


def strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what says when a row was made."""
    varying = ("updated_at", "published_at", "resource", "created_at")
    return [{name: value for name, value in row.items() if name not in varying} for row in rows]


def gone(place: Lakeside) -> set[str]:
    """What is told to be absent since."""
    return {name for name, codes in place.codes().items() if "GONE_SINCE_READ" in codes}


def test_each_such_object_is_told_and_flaws_that_were_found_stay_told(place):
    place.run_until("clinical")
    everything_is_gone(place.landing)
    place.run()
    assert gone(place) == {"a.dcm", "a.csv", "a.zip"}
    assert place.codes()["flawed.dcm"] == {"PATIENT_ID_MISSING"}
    assert place.codes()["bad.dcm"] == {"MISSING_IDENTITY"}


@pytest.mark.slow
def test_the_ledger_of_a_batch_stays_when_it_is_run_again_behind_newer_versions_of_its_files(place):
    place.run()
    before = ledger(place)
    everything_is_replaced(place.landing)
    with RunContext(place.settings, shared_engine=InlineEngine()) as work:
        claim_new(work.stores()[0], work.log, place.settings.claiming)
        (newer,) = (claim.batch_id for claim in work.log.claims() if claim.batch_id != place.batch)
        publish(work.batch(newer), judges=False)
    everything = contents(place.lake, ["clinical", *MADE_FROM_THEM])
    place.run()
    assert ledger(place) == before
    found = contents(place.lake, ["clinical", *MADE_FROM_THEM])
    assert {name: strip(rows) for name, rows in found.items()} == {
        name: strip(rows) for name, rows in everything.items()
    }


def ledger(place: Lakeside) -> dict[str, tuple[str, str | None]]:
    """Outcome and code of each object of the batch."""
    rows = table(place.lake, "validated_batch").to_pylist()
    return {row["object_id"]: (row["outcome"], row["code"]) for row in rows if row["batch_id"] == place.batch}


@pytest.mark.slow
def test_run_again_and_again_it_ends_in_the_same_tables(place):
    place.run_until("clinical")
    everything_is_gone(place.landing)
    place.run(judges=True)
    before = contents(place.lake)
    place.run()
    assert contents(place.lake) == before


@pytest.mark.slow
def test_what_had_no_rows_yet_ends_as_gone_or_changed(place):
    place.run_until("flat_metadata")
    (place.landing.root / "a.csv").unlink()
    everything = place.landing.put_zip("a.zip", {"other.dcm": dicom(8)}, age_seconds=60)
    assert everything.exists()
    place.run()
    outcomes = place.outcomes()
    assert outcomes["a.csv"] == "OBJECT_GONE"
    assert outcomes["in.csv"] == "CHANGED_DURING_READ"
    assert (outcomes["1.dcm"], outcomes["bad.dcm"], outcomes["a.zip"]) == (
        "ingested", "MISSING_IDENTITY", "ARCHIVE_EXPANDED")  # fmt: skip
    assert uid(3, 1, 1) in table(place.lake, "instance")["SOPInstanceUID"].to_pylist()


@pytest.mark.slow
def test_what_was_published_of_nothing_yet_ends_as_in_a_first_run(place):
    place.run_until("validated_batch")
    (place.landing.root / "a.zip").unlink()
    place.run()
    assert place.outcomes()["a.zip"] == "OBJECT_GONE"
    assert "1.dcm" not in place.outcomes()


@pytest.mark.slow
def test_an_object_that_is_replaced_while_it_is_read_again_stays_as_it_was_read(place, expected, monkeypatch):
    """It opens when the batch is expanded, and is another one when its members are read."""
    place.run_until("cleanup")
    kept = own_rows.stage_places

    def replaced_then(*arguments: Any) -> int:
        done = kept(*arguments)
        place.landing.put_zip("a.zip", {"1.dcm": dicom(8)}, age_seconds=60)
        return done

    monkeypatch.setattr(own_rows, "stage_places", replaced_then)
    place.run()
    found = contents(place.lake, OF_BATCHES)
    assert found == {name: expected[name] for name in OF_BATCHES}
    assert gone(place) == {"a.zip"}


@pytest.mark.slow
def test_a_batch_from_which_members_were_lost_by_an_earlier_release_finds_them_in_its_metadata(place, expected):
    """Run again without its archive, it replaced raw_files and the ledger before it paused."""
    place.run_until("cleanup")
    (place.landing.root / "a.zip").unlink()
    (place.landing.root / "a.dcm").unlink()
    with pytest.MonkeyPatch.context() as patch, RunContext(place.settings, shared_engine=InlineEngine()) as work:
        patch.setattr(own_rows, "stage_places", lambda lake, staging, manifest: staging.require_all("raw_files", "uri"))
        patch.setattr(own_rows, "stage_rows", lambda *_: 0)
        assert "validated_batch.gate" in failures(work.batch(place.batch))
    assert len(table(place.lake, "raw_files")) == 6
    place.run()
    assert contents(place.lake, ["flat_metadata"])["flat_metadata"] == expected["flat_metadata"]
    outcomes = place.outcomes()
    assert (outcomes["1.dcm"], outcomes["flawed.dcm"], outcomes["a.dcm"]) == (
        "ingested", "PATIENT_ID_MISSING", "ingested")  # fmt: skip


@pytest.mark.slow
def test_what_lies_there_now_is_claimed_by_itself_and_is_current(place):
    place.run_until("flat_metadata")
    place.landing.put("a.dcm", dicom(1, SeriesDescription="newer"), age_seconds=60)
    place.run()
    with RunContext(place.settings, shared_engine=InlineEngine()) as work:
        (claim,) = claim_new(work.stores()[0], work.log, place.settings.claiming).claims
        publish(work.batch(claim.batch_id))
    place.run()
    flat = table(place.lake, "flat_metadata").to_pylist()
    assert sorted(row["SeriesDescription"] for row in flat if row["uri"].endswith("/a.dcm")) == ["Series 1", "newer"]
    current = table(place.lake, "instance").to_pylist()
    assert [row["SeriesDescription"] for row in current if row["uri"].endswith("/a.dcm")] == ["newer"]
    assert books_of(place.lake, claim.batch_id).status == "closed"


@pytest.mark.slow
def test_a_source_that_is_away_as_a_whole_is_waited_for(place):
    place.run_until("flat_metadata")
    away = place.landing.root.with_name("away")
    place.landing.root.rename(away)
    with RunContext(place.settings, shared_engine=InlineEngine()) as work:
        found = failures(work.batch(place.batch))
    assert "The source is away" in found["validated_batch.gate"].explanation
    away.rename(place.landing.root)
    place.run()
    assert books_of(place.lake, place.batch).status == "closed"


@pytest.mark.slow
def test_corrections_that_are_gone_since_stay_in_force(tmp_path, landing):
    landing.put("a.dcm", dicom(1))
    file = landing.put("corrections/a.csv", corrections.table(corrections.correction("study", uid(1), PatientID="P9")))
    settings = settings_for(tmp_path / "lake", landing.root, corrections={"files": ["corrections/*.csv"]})
    with RunContext(settings) as work:
        (claim,) = claim_new(work.stores()[0], work.log, settings.claiming).claims
    place = Lakeside(settings, landing, claim.batch_id)
    place.run()
    before = contents(place.lake, ["correction", "validated_batch", "raw_files"])
    assert len(before["correction"]) == 1
    file.unlink()
    place.run()
    assert contents(place.lake, list(before)) == before
    assert gone(place) == {"a.csv"}


@pytest.mark.slow
def test_what_is_gone_keeps_its_promoted_columns(place):
    with RunContext(place.settings) as work:
        declare(work.lake, [promoted("PatientName", name="name_as_written")])
        fill(work.lake)
    place.run_anew_until("study")
    everything_is_gone(place.landing)
    place.run()
    names = {row["SOPInstanceUID"]: row["name_as_written"] for row in table(place.lake, "instance").to_pylist()}
    assert set(names) >= {uid(1, 1, 1), uid(3, 1, 1)}
    assert None not in names.values()
