"""`dicom-assets batch …`, `status` and `errors` for batches that wait for a person, as a user's shell runs them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dicom_assets.batch.context import RunContext
from dicom_assets.cli.main import app
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder

pytestmark = pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")
"""But for the ingest that all of them begin with, which is the real one."""

SECRETS = ("P0001", "Test^Patient", "1.2.826")


@dataclass(frozen=True)
class Place:
    """A landing folder and its lake."""

    folder: Path

    @property
    def landing(self) -> LandingFolder:
        return LandingFolder(self.folder / "landing")

    def run(self, *arguments: str, where: bool = False) -> Result:
        """A command in this process; where: it takes the landing folder too."""
        folders = ["--lake", str(self.folder / "lake")]
        folders += ["--landing", str(self.landing.root)] if where else []
        done = CliRunner().invoke(app, [*arguments, *folders])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        printed = done.stdout + done.stderr
        assert [secret for secret in SECRETS if secret in printed] == []
        return done

    def batch(self) -> str:
        with RunContext(settings_for(self.folder / "lake", self.landing.root)) as work:
            return work.log.claims()[-1].batch_id


@pytest.fixture(scope="module")
def once_paused(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lake with a batch that an ingest has left paused, and said so."""
    place = Place(tmp_path_factory.mktemp("paused") / "place")
    for number in range(3):
        place.landing.put(f"bad{number}.dcm", without_identity(number))
    place.landing.put("note.txt", "nothing to see here")
    with chdir(place.folder):
        ended = place.run("ingest", where=True)
    os.environ.pop("DAGSTER_HOME", None)
    assert ended.exit_code == 1
    for what in ("show", "retry", "accept", "dismiss"):
        assert f"dicom-assets batch {what} {place.batch()}" in ended.stderr
    shutil.copytree(place.folder, place.folder.with_name("kept"))
    return place


@pytest.fixture
def paused(once_paused: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The same, where it was made, for a test to go on with."""
    shutil.rmtree(once_paused.folder)
    shutil.copytree(once_paused.folder.with_name("kept"), once_paused.folder)
    with monkeypatch.context() as patch:
        patch.chdir(once_paused.folder)
        yield once_paused


def test_status_tells_by_its_exit_code_and_in_words_that_something_waits(paused):
    found = paused.run("status")
    assert found.exit_code == 1
    assert f"Batch {paused.batch()} is paused: validated_batch.gate: Nothing is ingested" in found.stderr
    assert f"dicom-assets batch accept {paused.batch()} --reason TEXT" in found.stderr
    told = paused.run("status", "-f", "json")
    (row,) = json.loads(told.stdout)
    assert told.exit_code == 1
    assert row["started"].endswith("Z")
    assert row["ended"] == ""
    assert row["reason"].startswith("validated_batch.gate: ")


def test_show_names_objects_by_code_and_what_can_be_done(paused):
    found = paused.run("batch", "show", paused.batch())
    assert found.exit_code == 0
    assert f"Batch {paused.batch()} of source landing is paused since 20" in found.stdout
    assert f"dicom-assets batch dismiss {paused.batch()} --reason TEXT" in found.stdout
    rows = json.loads(paused.run("batch", "show", paused.batch(), "-f", "json").stdout)
    assert [(row["code"], len(row["object_ids"])) for row in rows] == [("MISSING_IDENTITY", 3), ("NOT_DICOM", 1)]


@pytest.mark.slow
def test_retried_it_pauses_again_and_closes_with_another_threshold(paused):
    again = paused.run("batch", "retry", paused.batch(), where=True)
    assert (again.exit_code, again.stdout.count("paused")) == (1, 1)
    done = paused.run("batch", "retry", paused.batch(), "--quarantined-share", "1", where=True)
    assert (done.exit_code, done.stdout.count("closed")) == (0, 1)
    assert paused.run("status").exit_code == 0


@pytest.mark.slow
def test_an_error_is_open_until_what_is_wrong_is_replaced_and_open_ones_come_first(paused):
    batch = paused.batch()
    assert paused.run("batch", "accept", batch, "--reason", "known", where=True).exit_code == 0
    paused.landing.put("bad0.dcm", dicom(1), age_seconds=3_600)
    assert paused.run("ingest", where=True).exit_code == 0
    rows = json.loads(paused.run("errors", "-f", "json").stdout)
    assert [(row["state"], row["code"], row["objects"], row["resolved by"]) for row in rows] == [
        ("open", "MISSING_IDENTITY", 2, ""),
        ("open", "NOT_DICOM", 1, ""),
        ("replaced", "MISSING_IDENTITY", 1, paused.batch()),
    ]
    table = paused.run("errors").stdout.splitlines()
    assert [line.split()[0] for line in (table[0], table[1])] == ["state", "open"]


@pytest.mark.parametrize("arguments", [
    ("show", "nope"), ("retry", "nope"), ("accept", "nope", "--reason", "x"), ("dismiss", "nope", "--reason", "x"),
])  # fmt: skip
def test_a_batch_that_is_not_there_is_told_and_ends_with_2(tmp_path, arguments):
    place = Place(tmp_path)
    place.landing.root.mkdir()
    with RunContext(settings_for(tmp_path / "lake", place.landing.root)) as work:
        assert work.lake
    before = sorted(tmp_path.rglob("*"))
    done = place.run("batch", *arguments)
    assert done.exit_code == 2
    assert "No batch 'nope' is claimed in this lake" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_what_cannot_be_decided_is_told_and_ends_with_2_and_what_is_dismissed_closes_and_is_open_no_more(paused):
    batch = paused.batch()
    with RunContext(settings_for(paused.folder / "lake", paused.landing.root)) as work:
        work.batch(batch)
        for what in (["retry"], ["accept", "--reason", "x"], ["dismiss", "--reason", "x"]):
            done = paused.run("batch", what[0], batch, *what[1:])
            assert (done.exit_code, "is under way" in done.stderr) == (2, True)
    assert paused.run("batch", "accept", batch, "--reason", "").exit_code == 2
    elsewhere = paused.run("batch", "accept", batch, "--reason", "x")
    assert (elsewhere.exit_code, "was claimed from another folder" in elsewhere.stderr) == (2, True)

    done = paused.run("batch", "dismiss", batch, "--reason", "sent twice", "--by", "anna")
    assert (done.exit_code, done.stdout.count("closed")) == (0, 1)
    assert "It was dismissed by anna at 20" in paused.run("batch", "show", batch).stdout
    assert paused.run("status").exit_code == 0
    rows = json.loads(paused.run("errors", "-f", "json").stdout)
    assert [(row["state"], row["code"], row["objects"]) for row in rows] == [("dismissed", "DISMISSED", 4)]
    closed = paused.run("batch", "retry", batch)
    assert (closed.exit_code, f"Batch {batch} is closed" in closed.stderr) == (2, True)
