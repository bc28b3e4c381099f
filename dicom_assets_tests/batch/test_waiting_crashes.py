"""A batch that objects leave, cut off at any write of it: what left is claimed again once, nothing is lost or twice.

Cut off is before each write of a file or a table of the lake, and after the last one: from the first of the batch to
the claim that takes up what left. Of writes that stage, which a run begins anew, it is before the first one in a row.
What is cut off is begun again and cut off at a later write, until it is let through.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER as STAGED
from dicom_assets.landing.claims import Haste, claim_new
from dicom_assets.settings import Settings
from dicom_assets_tests.batch.test_crashes import NAMES, Killed, cut_off
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.faults import refusing
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import contents, make_asset, settings_for, table
from dicom_assets_tests.support.landings import LandingFolder

pytestmark = pytest.mark.slow

NEEDLESS = ("correction", "patient_link", "diagnostic_report", "omop_identifier", "mapping_coverage")
MADE = [name for name in NAMES if name not in NEEDLESS]
"""What the books of such a batch close over."""


def claim(settings: Settings) -> list[str]:
    with RunContext(settings) as work:
        (store,) = work.stores()
        done = claim_new(store, work.log, settings.claiming, haste=Haste(waiting=True, absent=True))
        return [one.batch_id for one in done.claims]


def run(settings: Settings, batch: str, names: list[str] | None = None) -> None:
    with RunContext(settings, shared_engine=InlineEngine()) as work:
        for name in names or MADE:
            make_asset(name, batch, work)


@pytest.fixture(scope="module")
def landing(tmp_path_factory) -> LandingFolder:
    """A batch of a file that can be read, one that cannot, an archive that cannot, and one that will be gone."""
    landing = LandingFolder(tmp_path_factory.mktemp("waiting") / "landing")
    landing.put("good.dcm", dicom(1))
    landing.put("bad.dcm", dicom(2))
    landing.put_zip("bad.zip", {"1.dcm": dicom(3, 1, 1), "2.dcm": dicom(3, 1, 2)})
    landing.put("gone.dcm", dicom(4))
    return landing


@pytest.fixture(scope="module")
def claimed(landing) -> tuple[Path, str]:
    """A lake in which the batch is claimed and not begun."""
    lake = landing.root.parent / "lake"
    (batch,) = claim(settings_for(lake, landing.root))
    return lake, batch


def moments(work: Callable[[], None]) -> list[tuple[int, bool]]:
    """Before each write that something takes, of staging ones the first in a row, and after the last one: `cut_off`."""
    with cut_off(0, before=False) as begun:
        work()
    chosen: list[int] = []
    for stages, row in itertools.groupby(enumerate(begun, 1), lambda write: f" {STAGED}/" in write[1]):
        numbers = [number for number, _ in row]
        chosen += numbers[:1] if stages else numbers
    return [*((number, True) for number in chosen), (len(begun), False)]


def in_turn(points: list[tuple[int, bool]]) -> list[list[tuple[int, bool]]]:
    """Moments that one lake goes through: each second one, so that between two of them something is done."""
    return [points[::2], points[1::2]]


def ingested_once(lake: Path) -> bool:
    found = table(Lake(str(lake)), "validated_batch").to_pylist()
    ingested = [row["object_id"] for row in found if row["outcome"] == "ingested"]
    return len(ingested) == len(set(ingested))


def finish(settings: Settings, batch: str) -> dict:
    """What the lake says when everything can be read again, and whoever comes next has done what is left."""
    run(settings, batch)
    for later in claim(settings):
        run(settings, later)
    assert claim(settings) == []
    books = table(Lake(settings.lake), "batches").to_pylist()
    assert {row["status"] for row in books} == {"closed"}
    assert [row for row in books if row["seen"] != row["ingested"] + row["quarantined"] + row["ignored"]] == []
    assert ingested_once(Path(settings.lake))
    found = contents(Lake(settings.lake), ["instance", "series", "study"])
    return {
        name: [{k: v for k, v in row.items() if k not in ("batch_id", "first_seen_at", "updated_at")} for row in rows]
        for name, rows in found.items()
    }


@pytest.fixture(scope="module")
def expected(claimed, landing) -> dict:
    """What the lake says where everything could be read at once."""
    lake, batch = claimed
    found = finish(settings_for(Path(shutil.copytree(lake, f"{lake}-sound")), landing.root), batch)
    assert len(found["instance"]) == 5
    return found


class TestCutOff:
    @pytest.mark.parametrize("names", [["raw_files", "validated_batch"], ["cleanup"]], ids=["reading", "closing"])
    def test_it_ends_as_if_nothing_had_been(self, claimed, landing, expected, tmp_path, names):
        lake, batch = claimed
        bad = [landing.root / name for name in ("bad.dcm", "bad.zip")]
        gone, away = landing.root / "gone.dcm", landing.root.parent / "away"

        def unreadable(settings: Settings, names: list[str]) -> None:
            gone.rename(away)
            try:
                with refusing(*bad):
                    run(settings, batch, names)
            finally:
                away.rename(gone)

        def copied(name: str, origin: Path = lake) -> Settings:
            return settings_for(Path(shutil.copytree(origin, tmp_path / name)), landing.root)

        begun = copied("begun")
        unreadable(begun, MADE[: MADE.index(names[0])])
        whole = copied("whole", Path(begun.lake))
        points = moments(lambda: unreadable(whole, names))
        for half, some in enumerate(in_turn(points)):
            settings = copied(f"half{half}", Path(begun.lake))
            cut = 0
            for number, before in some:
                with cut_off(number, before=before), suppress(Killed):
                    unreadable(settings, names)
                    continue  # what is done already is not written again
                cut += 1
            assert cut
            assert finish(settings, batch) == expected, some

    def test_in_the_claim_that_takes_up_what_left(self, claimed, landing, tmp_path):
        lake, batch = claimed
        left = Path(shutil.copytree(lake, tmp_path / "left"))
        with refusing(*(landing.root / name for name in ("bad.dcm", "bad.zip"))):
            run(settings_for(left, landing.root), batch)
        whole = settings_for(Path(shutil.copytree(left, tmp_path / "whole")), landing.root)
        for half, some in enumerate(in_turn(moments(lambda: claim(whole) and None))):
            settings = settings_for(Path(shutil.copytree(left, tmp_path / f"half{half}")), landing.root)
            for number, before in some:
                with cut_off(number, before=before), suppress(Killed):
                    claim(settings)
            claim(settings)
            with RunContext(settings) as work:
                for later in work.unclosed():
                    run(settings, later)
            assert len(table(Lake(settings.lake), "instance")) == 5, some
            assert ingested_once(Path(settings.lake))
            assert claim(settings) == []
