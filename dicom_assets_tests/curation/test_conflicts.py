"""Conflicts: each that there can be is found and told once, and what agrees is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dicom_assets.batch.verification.verify import verify
from dicom_assets.curation.belonging import BELONGINGS
from dicom_assets_tests.support.conflicts import CONTRADICTIONS, Contradiction, agreeing
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through


def put(landing: LandingFolder, name: str, objects: list[bytes]) -> None:
    for number, one in enumerate(objects):
        landing.put(f"{name}/{number}.dcm", one)


@pytest.fixture(scope="module")
def found(states) -> Iterator[dict[tuple[str, ...], list[dict[str, Any]]]]:
    """The rows of conflict, by the study that they are about (its number)."""

    def make(graph: Stepped, landing: LandingFolder) -> None:
        for number, one in enumerate(CONTRADICTIONS, 10):
            put(landing, f"wrong{number}", one.objects(number))
            put(landing, f"clean{number}", [] if is_uid(one) else one.objects(number + 1_000, clean=True))
        put(landing, "agreeing", agreeing(3_000))
        step_through(graph)

    graph, _, _ = states.begin(make)
    assert verify(graph.lake, graph.settings).holds
    yield graph.rows("SELECT * FROM conflict ORDER BY conflict_key")


def is_uid(one: Contradiction) -> bool:
    return one.attribute in ("SeriesInstanceUID", "SOPInstanceUID")


@pytest.mark.parametrize("number", range(10, 10 + len(CONTRADICTIONS)))
def test_each_contradiction_is_told_once_with_its_values_and_what_is_shown(found, number: int):
    one = CONTRADICTIONS[number - 10]
    keys = {f"P{number}", uid(number), uid(number, 1), *([one.first] if is_uid(one) else [])}
    mine = [
        row for row in found
        if keys & {row["PatientID"], row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"]}
    ]  # fmt: skip
    assert [(row["level"], row["attribute"], row["value_count"]) for row in mine] == [(one.level, one.attribute, 2)]
    (row,) = mine
    assert row["told_objects"] == [1, 1]
    if is_uid(one):
        assert row["shown_value"] is None and row["rule"] is None
    else:
        assert row["shown_value"] in row["told_values"]
        assert row["rule"] == "newest"
    assert len(row["study_keys"]) == 1 + one.other_study


def test_nothing_else_is_told(found):
    assert len(found) == len(CONTRADICTIONS)
    assert {row["attribute"] for row in found} >= {one.keyword for one in BELONGINGS}
