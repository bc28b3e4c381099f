"""A batch that is cut off at any write ends, when it is run again, in the same tables as one that never was.

The assets are called here one after the other, so that every write of each can be cut off; what a kill of the whole
process leaves behind is tested with the command itself (`dicom_assets_tests.test_kills`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.steps import STEPS
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import claim_new
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, contents, make_asset, settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed

pytestmark = pytest.mark.slow

NAMES = [*TABLES_OF_A_BATCH]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the project catches it."""


@dataclass(frozen=True)
class Case:
    """A batch that is claimed and not started, in a lake that holds its studies already; and what it must end as.

    before: by asset, the lake when everything before it is done. writes: by asset, what it writes, in order.
    """

    folder: Path
    batch: str
    before: dict[str, Path]
    writes: dict[str, list[str]]
    expected: dict[str, list[dict[str, Any]]]

    def settings(self, lake: Path) -> Settings:
        return settings_for(lake, self.folder / "landing")


def run(settings: Settings, batch: str, names: Sequence[str] = NAMES) -> None:
    """Some assets of a batch, in the order of the flow, without Dagster's run around them."""
    with RunContext(settings, shared_engine=InlineEngine()) as work:
        for name in NAMES:
            if name in names:
                make_asset(name, batch, work)


def claim(settings: Settings) -> str:
    """Claims the one batch that there is."""
    with RunContext(settings) as work:
        ((made,),) = [claim_new(store, work.log, settings.claiming).claims for store in work.stores()]
        return made.batch_id


@contextmanager
def cut_off(at: int, *, before: bool) -> Iterator[list[str]]:
    """Cuts off before or after write number `at` (0 never); yields the writes that were begun: what, and of what."""
    begun: list[str] = []
    kept = [(owner, name, getattr(owner, name)) for owner, name in ((Lake, "replace"), (LakeFiles, "put"),
                                                                    (LakeFiles, "delete"))]  # fmt: skip

    def cutting(method: Any, name: str) -> Any:
        def cut(self: Any, what: str, *arguments: Any, **options: Any) -> Any:
            begun.append(f"{name} {what}")
            number = len(begun)
            if before and number == at:
                raise Killed
            result = method(self, what, *arguments, **options)
            if not before and number == at:
                raise Killed
            return result

        return cut

    try:
        for owner, name, method in kept:
            setattr(owner, name, cutting(method, name))
        yield begun
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    settings = settings_for(folder / "lake", landing.root)
    put_mixed(landing)
    run(settings, claim(settings))
    landing.put("study1/series1/0001.dcm", dicom(1, 1, 1, SeriesDescription="newer"), age_seconds=3_600)
    landing.put("study1/series1/0009.dcm", dicom(1, 1, 9), age_seconds=3_600)
    landing.put("copies/0009.dcm", dicom(1, 1, 9), age_seconds=3_600)
    landing.put("clinical/diagnoses.csv", "PatientID;x\nP0001;y\n", age_seconds=3_600)
    landing.put("odd/new.txt", "nothing", age_seconds=3_600)
    batch = claim(settings)
    whole = Path(shutil.copytree(folder / "lake", folder / "whole"))
    before, writes = {}, {}
    for name in NAMES:
        before[name] = Path(shutil.copytree(whole, folder / f"before-{name}"))
        with cut_off(0, before=False) as begun:
            run(settings_for(whole, landing.root), batch, [name])
        writes[name] = begun
    expected = contents(Lake(str(whole)))
    assert {row["status"] for row in expected["batches"]} == {"closed"}
    return Case(folder, batch, before, writes, expected)


STANDARDS = [name for step in STEPS if step.group == "standards" for name in step.tables]
SPINE = [name for name in NAMES if name not in (*STANDARDS, "correction", "patient_link")]
"""The tables of FHIR and OMOP are replaced like those of the hierarchy; some reruns pass through them all the same. Of
corrections nothing is written where none came."""


def points(case: Case, name: str) -> list[tuple[int, bool]]:
    """After each commit of an asset, before its first staged file, and after the deletion of its staging; `cut_off`."""
    writes = [write.split()[0] for write in case.writes[name]]
    found = [(number, False) for number, write in enumerate(writes, 1) if write == "replace"]
    if "put" in writes:
        found.append((writes.index("put") + 1, True))
    if name == "cleanup":
        found.append((writes.index("delete") + 1, False))
    return sorted(found)


IN_ONE_LAKE = [SPINE[first::4] for first in range(4)]
"""Assets whose writes are cut off in one lake, one asset after the other: not those that follow each other."""


@pytest.mark.parametrize("names", IN_ONE_LAKE, ids=" ".join)
def test_a_batch_that_is_cut_off_at_a_write_ends_in_the_same_tables_when_it_is_run_again(case, tmp_path, names):
    """Run again from its beginning, it is cut off at the next write of an asset, until it is let through."""
    lake = Path(shutil.copytree(case.before[names[0]], tmp_path / "lake"))
    settings = case.settings(lake)
    found = [(name, *point) for name in names for point in points(case, name)]
    assert {name for name, *_ in found} == {*names}, "an asset writes"
    for place, (name, number, early) in enumerate(found):
        if place:
            run(settings, case.batch, SPINE[: SPINE.index(name)])
        with cut_off(number, before=early), suppress(Killed):
            run(settings, case.batch, [name])
            assert place, "the first time, it is cut off; later it may have nothing to write"
    is_last = not {"study", "cleanup"}.isdisjoint(names)
    run(settings, case.batch, NAMES if is_last else SPINE)
    compared = [table for table in case.expected if is_last or table not in STANDARDS]
    there = contents(Lake(str(lake)), compared)
    for table in compared:
        assert there[table] == case.expected[table], (table, found)
    assert [path for path in (lake / "_staging").rglob("*") if path.is_file()] == []


def test_a_batch_that_was_cut_off_and_is_finished_after_another_of_its_studies_loses_nothing(case, tmp_path):
    lake = Path(shutil.copytree(case.folder / "lake", tmp_path / "lake"))
    first = case.settings(lake)
    run(first, case.batch, NAMES[: NAMES.index("flat_metadata") + 1])
    other = LandingFolder(tmp_path / "other")
    other.put("0010.dcm", dicom(1, 1, 10))
    second = first.model_copy(update={"sources": (first.sources[0].model_copy(update={"root": str(other.root)}),)})
    run(second, claim(second))
    run(first, case.batch)
    counts = sorted(row["instance_count"] for row in contents(Lake(str(lake)), ["study"])["study"])
    assert counts == [1, 2, 6]
