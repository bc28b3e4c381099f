"""Trees of the form that the DICOM service keeps: written where they are ours, refused where they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from dicom_assets.lake.delta import Lake
from dicom_assets.landing.deposits import MARK
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import source_of
from dicom_assets.settings import SettingsError, SourceSettings
from dicom_assets_tests.serve.storing_service import Place, place
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import table

TREE = "AHDS/lab/dicom/images"


@pytest.fixture
def tree(tmp_path) -> Iterator[Place]:
    with place(tmp_path, filled=False, store="tree", tree="lab/images") as one:
        yield one


def below(one: Place) -> list[str]:
    return [path.relative_to(one.root).as_posix() for path in one.files()]


def test_objects_lie_in_the_tree_as_the_service_names_them_and_partitions_are_sources(tree):
    assert tree.store(dicom(1)).status_code == 200
    answer = tree.store(dicom(1), path="/landing/Ward-7/studies")  # the same bytes, in a partition of their own
    assert answer.status_code == 200
    address = answer.json()["00081190"]["Value"][0]
    assert address == f"{tree.url}/dicom-web/landing/Ward-7/studies/{uid(1)}"
    mark, *names = below(tree)
    assert mark == f"{TREE}/{MARK}"
    assert [name.split("/")[4] for name in names] == ["Microsoft.Default", "Ward-7"]
    for name in names:
        found = re.fullmatch(rf"{TREE}/[A-Za-z.0-9-]+/[0-9a-f]{{3}}_(\d+)\.dcm", name)
        assert found and int(found[1]) < 2**63
    assert [source_of("landing", name) for name in names] == ["landing", "landing/Ward-7"]
    tree.publish()
    flat = table(Lake(tree.settings.lake), "flat_metadata")
    assert sorted(flat["source"].to_pylist()) == ["landing", "landing/Ward-7"]
    codes = table(Lake(tree.settings.lake), "validated_batch")["code"].to_pylist()
    assert sorted(codes, key=str) == [None, None, "SYSTEM_FILE"], "the mark is accounted for, too"


def test_versions_in_a_tree_are_told_apart_by_partition(tree):
    tree.store(dicom(1))
    assert tree.store(dicom(1, Rows=4)).status_code == 202
    assert tree.store(dicom(1, Rows=4), path="/landing/Ward-7/studies").status_code == 200
    assert tree.store(dicom(1, Rows=4)).status_code == 200
    assert len(below(tree)) == 4


@pytest.mark.parametrize("partition", ["%2e%2e", "%2e", "a%2fb", "W%20ard", "x" * 65])
def test_what_is_no_partition_is_refused(tree, partition):
    answer = tree.store(dicom(1), path=f"/landing/{partition}/studies")
    assert answer.status_code in (404, 405) and below(tree) == []


def test_a_tree_that_somebody_else_made_is_left_alone(tmp_path):
    with place(tmp_path, filled=False, store="tree", tree="lab/images") as one:
        theirs = one.root / TREE / "Microsoft.Default" / "abc_12.dcm"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(dicom(1))
        answer = one.store(dicom(2))
        assert (answer.status_code, below(one)) == (403, [f"{TREE}/Microsoft.Default/abc_12.dcm"])
        assert "somebody else" in answer.text


def test_another_tree_beside_one_of_somebody_else_is_ours(tmp_path):
    with place(tmp_path, filled=False, store="tree") as one:
        theirs = one.root / TREE / "Microsoft.Default" / "abc_12.dcm"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(dicom(1))
        assert one.store(dicom(2)).status_code == 200
        assert below(one)[1].startswith("AHDS/dicom-assets/dicom/landing/Microsoft.Default/")


def test_sources_that_are_not_stored_to_are_for_reading(tmp_path):
    with place(tmp_path, filled=False, store=None) as one:
        for path in ("/studies", "/landing/studies", f"/studies/{uid(1)}"):
            answer = one.store(dicom(1), path=path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert below(one) == []


def test_a_source_that_is_not_there_and_a_partition_where_there_are_none_are_not_found(tmp_path):
    with place(tmp_path, filled=False) as one:
        assert one.store(dicom(1), path="/other/studies").status_code == 404
        assert one.store(dicom(1), path="/landing/Ward-7/studies").status_code == 404
        assert one.store(dicom(1), path="/landing/studies").status_code == 200


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"store": "by_date", "include": ("incoming/**",)}, "patterns leave out"),
        ({"store": "tree", "exclude": ("AHDS/**",)}, "patterns leave out"),
        ({"store": "by_date", "root": "/data/AHDS/lab/dicom/images"}, "within a tree of a DICOM service"),
    ],
    ids=["not included", "excluded", "in a tree"],
)
def test_a_source_that_could_not_account_for_what_is_stored_is_refused(values, sentence):
    with pytest.raises(SettingsError, match=sentence):
        open_store(SourceSettings(**{"root": "/data/landing", **values}))


def test_a_tree_needs_its_layout():
    with pytest.raises(ValidationError, match="tree is for store = 'tree'"):
        SourceSettings(root="/data", tree="lab/images")
