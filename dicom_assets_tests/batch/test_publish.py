"""Publishing: idempotent by batch, and the same instances, series and studies in whatever order batches arrive."""

from __future__ import annotations

import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.batch.checks import parity_checks as checks
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.parity_checks import hierarchy_equals_metadata
from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import StagingMissing
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.versions import (
    LEVELS,
    Version,
    expected_instances,
    publish,
    stage,
    versions,
)

FEW = settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a publication takes too long to shrink what fails
)


def version(instance: int = 1, *, minute: int = 0, deletes: bool = False, number: int, batch: int = 0) -> Version:
    return Version(1, 1, instance, minute, 0, deletes, "a", "P1", number, batch)


@pytest.fixture(scope="module")
def make_lake(tmp_path_factory) -> Callable[[], Lake]:
    """Makes new lakes, quickly: copies of one that is empty."""
    empty = tmp_path_factory.mktemp("empty") / "lake"
    Lake(str(empty))

    def make() -> Lake:
        return Lake(shutil.copytree(empty, tmp_path_factory.mktemp("copy") / "lake").as_posix(), make=False)

    return make


@pytest.fixture
def lake(make_lake) -> Lake:
    return make_lake()


@pytest.mark.slow
@given(versions(), st.randoms(use_true_random=False))
@FEW
def test_any_order_of_batches_and_any_rerun_give_what_the_rules_say_row_for_row(
    make_lake, batches, chance: random.Random
):
    lake, other = make_lake(), make_lake()
    for batch in batches:
        publish(lake, batch)
    found = contents(lake, LEVELS)
    _agrees(found, batches)

    publish(lake, chance.choice(batches))
    assert contents(lake, LEVELS) == found

    for batch in chance.sample(batches, len(batches)):
        publish(other, batch)
    assert contents(other, LEVELS) == found


def _agrees(rows, batches) -> None:
    expected = expected_instances(batches)
    assert {
        (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"]): row["object_id"]
        for row in rows["instance"]
    } == {key: one.object_id for key, one in expected.items()}

    members = defaultdict(list)
    for (study, series, _), one in expected.items():
        members[study, series].append(one)
        members[study].append(one)
    for row in rows["series"]:
        mine = members.pop((row["StudyInstanceUID"], row["SeriesInstanceUID"]))
        assert row["instance_count"] == len(mine)
        assert row["SeriesDescription"] == _newest(mine, "description")
        assert row["object_id"] == max(mine, key=lambda one: one.age).object_id
    for row in rows["study"]:
        mine = members.pop(row["StudyInstanceUID"])
        assert row["instance_count"] == len(mine)
        assert row["series_count"] == len({one.series for one in mine})
        assert row["StudyDescription"] == _newest(mine, "description")
        assert row["ModalitiesInStudy"] == sorted({"CT" if one.series == 1 else "MR" for one in mine})
        assert row["patient_count"] == len({one.patient for one in mine if one.patient})
        assert row["size"] == sum(100 + one.number for one in mine)
    assert not members


def _newest(mine: list[Version], name: str) -> str | None:
    known = [one for one in mine if getattr(one, name) is not None]
    return getattr(max(known, key=lambda one: one.age), name) if known else None


class TestDeleting:
    @pytest.mark.slow
    def test_the_last_instance_of_a_study_takes_series_and_study_with_it(self, lake):
        publish(lake, [version(number=1)])
        publish(lake, [version(minute=1, deletes=True, number=2, batch=1)])
        assert [len(rows) for rows in contents(lake, LEVELS).values()] == [0, 0, 0]
        assert len(contents(lake, ["flat_metadata"])["flat_metadata"]) == 2

    @pytest.mark.slow
    def test_one_instance_of_two_leaves_the_other(self, lake):
        publish(lake, [version(1, number=1), version(2, number=2)])
        publish(lake, [version(1, minute=1, deletes=True, number=3, batch=1)])
        rows = contents(lake, LEVELS)
        assert [row["SOPInstanceUID"] for row in rows["instance"]] == [uid(1, 1, 2)]
        assert (rows["series"][0]["instance_count"], rows["study"][0]["instance_count"]) == (1, 1)

    @pytest.mark.slow
    def test_a_delete_older_than_the_file_deletes_nothing(self, lake):
        publish(lake, [version(minute=5, number=1)])
        publish(lake, [version(minute=1, deletes=True, number=2, batch=1)])
        assert [len(rows) for rows in contents(lake, LEVELS).values()] == [1, 1, 1]

    def test_an_instance_that_comes_back_is_back(self, lake):
        for number, deletes in enumerate([False, True, False], start=1):
            publish(lake, [version(minute=number, deletes=deletes, number=number, batch=number)])
        assert [len(rows) for rows in contents(lake, LEVELS).values()] == [1, 1, 1]


class TestWhatABatchTouches:
    @pytest.mark.slow
    def test_a_batch_that_loses_a_study_when_it_is_run_again_rebuilds_it_still(self, lake):
        publish(lake, [version(1, number=1), Version(2, 1, 1, 0, 0, False, None, None, 2, 0)])
        staging = publish(lake, [version(1, number=1)])
        assert [row["StudyInstanceUID"] for row in contents(lake, ["study"])["study"]] == [uid(1)]
        assert staging.left() == 6  # of three parts the rows and the mark

    @pytest.mark.slow
    def test_studies_of_other_batches_keep_their_files(self, lake):
        publish(lake, [version(number=1)])
        publish(lake, [Version(2, 1, 1, 0, 0, False, None, None, 2, 1)])
        before = set(lake.table("study").file_uris())
        publish(lake, [Version(2, 1, 2, 0, 0, False, None, None, 3, 2)])
        assert len(before & set(lake.table("study").file_uris())) == 1

    def test_the_hierarchy_without_published_metadata_says_what_is_missing(self, lake):
        with pytest.raises(StagingMissing, match="has no staged touched_studies"):
            publish_hierarchy(lake, stage(lake, [version(number=1)]), "instance")


class TestTwoBatchesAtOnce:
    def test_a_batch_is_checked_against_what_it_was_made_from(self, lake):
        """Another batch may publish metadata of the same study between a batch's rebuild and its check."""
        mine = stage(lake, [version(1, number=1)])
        publish_flat(lake, mine)
        publish_hierarchy(lake, mine, "instance")
        theirs = stage(lake, [version(2, number=2, batch=1)])
        publish_flat(lake, theirs)
        assert hierarchy_equals_metadata("instance", CheckContext(lake, mine)).passed
        for level in LEVELS:
            publish_hierarchy(lake, theirs, level)
        for level in LEVELS[1:]:
            publish_hierarchy(lake, mine, level)
        for level in LEVELS:
            assert hierarchy_equals_metadata(level, CheckContext(lake, mine)).passed
            assert hierarchy_equals_metadata(level, CheckContext(lake, theirs)).passed
        assert Counter(row["SOPInstanceUID"] for row in contents(lake, ["instance"])["instance"]) == Counter(
            [uid(1, 1, 1), uid(1, 1, 2)]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("moment", ["study_scope", "scan", "touched_rows"])
    def test_a_batch_that_publishes_everything_while_another_is_checked_does_not_disturb_it(
        self, lake, monkeypatch, moment
    ):
        mine = publish(lake, [version(1, number=1)])
        kept, done = getattr(checks, moment), []

        def meanwhile(*arguments, **options):
            result = kept(*arguments, **options)
            if not done:
                done.append(publish(lake, [version(2, number=2, batch=1)]))
            return result

        monkeypatch.setattr(checks, moment, meanwhile)
        assert hierarchy_equals_metadata("instance", CheckContext(lake, mine)).passed
        assert done
