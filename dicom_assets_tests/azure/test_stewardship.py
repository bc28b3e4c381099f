"""A lake that lies on Azure changes as one in a folder does: upgraded, promoted, decided, read again, erased.

One lake for all: the one that the first release wrote, brought up to date on Azurite. Each test changes something else
of it and asks for nothing that another one takes away, so any of them can be run alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dicom_assets.batch.books import all_books
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, existing
from dicom_assets_tests.azure.azurite import new_container
from dicom_assets_tests.upgrade.lakes import EarlierLake, everything, unpacked, upgrade
from dicom_assets_tests.upgrade.make_lake import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_dagster")]


@dataclass(frozen=True)
class Steward:
    """Whoever changes a lake by commands. upgraded: what the upgrade said; before: every row behind it."""

    earlier: EarlierLake
    url: str
    upgraded: Result
    before: Mapping[str, list[dict[str, Any]]]

    def run(self, *arguments: str) -> Result:
        """A command in this process."""
        return run(self.url, *arguments)

    @property
    def lake(self) -> Lake:
        """The lake, opened anew."""
        return existing(self.url)

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """What SQL says."""
        with connect(self.lake) as connection:
            return connection.execute(sql).fetchall()

    def differing(self) -> list[str]:
        """The rules that do not hold."""
        found = verify(self.lake, self.earlier.settings(Path("lake")).model_copy(update={"lake": self.url}))
        return [one.rule for one in found.findings if not one.holds]

    def batch(self, status: str) -> str:
        """The first batch of a status."""
        return next(one.batch_id for one in all_books(self.lake) if one.status == status)


def run(url: str, *arguments: str) -> Result:
    """A command in this process, on the lake."""
    done = CliRunner().invoke(app, [*arguments, "--lake", url])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def steward(emulator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steward]:
    """The lake of the first release in a container, upgraded by the command."""
    folder = tmp_path_factory.mktemp("steward")
    with unpacked("format1") as earlier, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DICOM_ASSETS_CONFIG", str(earlier.place / "dicom-assets.toml"))
        patch.setenv("HOME", str(folder))  # Dagster's state lies below it
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.chdir(folder)
        container = new_container()
        container.upload(earlier.place / "lake")
        upgraded = run(container.url, "upgrade")
        yield Steward(earlier, container.url, upgraded, everything(existing(container.url)))


def test_it_is_upgraded_to_the_same_rows_as_in_a_folder(steward, tmp_path):
    assert steward.upgraded.exit_code == 0
    assert "up to date" in steward.run("upgrade", "--plan").stdout
    local = steward.earlier.copy(tmp_path / "lake")
    upgrade(local)
    here = everything(existing(local.lake))
    taken = {row["object_id"] for row in here["raw_files"]}

    def of_objects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if row["object_id"] in taken]

    assert len(here["imaging_study"]) == 3
    for name, found in steward.before.items():
        assert found == here[name] if name != "ingestion_errors" else of_objects(found) == of_objects(here[name]), name


def test_attributes_are_promoted_and_taken_away_again(steward):
    for words in (
        ["(0019,SIEMENS MR HEADER,0C)", "--name", "b_value"],
        ["RequestAttributesSequence.ScheduledProcedureStepID", "--name", "step", "--level", "study"],
    ):
        assert steward.run("columns", "add", *words).exit_code == 0
    rows = steward.ask("SELECT DISTINCT StudyInstanceUID, step FROM study WHERE StudyInstanceUID LIKE '%.1'")
    assert rows == [(f"{ROOT}.1", ["STEP1"])]
    assert steward.ask("SELECT count(*) FROM instance WHERE b_value IS NULL") == [(0,)]
    assert steward.run("columns", "remove", "b_value").exit_code == 0
    assert [one.column.name for one in steward.lake.columns] == ["step"]


def test_a_batch_that_waits_is_shown_and_dismissed(steward):
    batch = steward.batch("paused")
    shown = steward.run("batch", "show", batch)
    assert (shown.exit_code, "dismiss" in shown.stdout) == (0, True)
    assert steward.run("batch", "retry", batch).exit_code == 1
    assert steward.run("batch", "dismiss", batch, "--reason", "nothing of it has an identity").exit_code == 0
    rows = steward.ask(f"SELECT status, decision, seen, quarantined FROM batches WHERE batch_id = '{batch}'")
    assert rows == [("closed", "dismissed", 12, 12)]


def test_a_batch_is_read_again(steward):
    batch = steward.batch("closed")
    done = steward.run("reread", "--batch", batch)
    assert done.exit_code == 0, done.stderr
    rows = steward.ask(f"SELECT count(*) > 0 FROM validated_batch WHERE batch_id = '{batch}' AND superseded_by <> ''")
    assert rows == [(True,)]
    assert steward.ask("SELECT count(*) > 0 FROM flat_metadata WHERE pixel_offset IS NOT NULL") == [(True,)]


def test_a_study_is_erased_and_then_nowhere(steward):
    planned = steward.run("erase", "--study", f"{ROOT}.2", "--plan", "--format", "csv")
    places = dict(line.rsplit(",", 1) for line in planned.stdout.splitlines())
    assert int(places["flat_metadata"]) >= 2
    assert int(places["lines of claims and returns"]) >= 2
    done = steward.run("erase", "--study", f"{ROOT}.2", "--by", "a steward")
    assert (done.exit_code, "Nothing of it stands in any file" in done.stdout) == (0, True), done.stderr
    assert steward.ask(f"SELECT * FROM study WHERE StudyInstanceUID = '{ROOT}.2'") == []
    assert steward.ask("SELECT count(*) FROM erasure") == [(1,)]
    assert steward.run("erase", "--study", f"{ROOT}.2", "--search").exit_code == 0
    assert steward.differing() == [], "whatever else has been done to it"
