"""Which of several values counts: by the rule of the settings wherever one is shown, and when it is changed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.rebuild import rebuild
from dicom_assets.batch.verification.verify import verify
from dicom_assets.lake.choice import Choice
from dicom_assets.settings import CurationSettings, SettingsError
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through

FREQUENT = {"conflict_rule": "most_frequent", "attribute_rules": {"SeriesDescription": "newest"}}


EVEN = {"StudyID": "1", "AccessionNumber": "9"}
"""What the newest instance says where as many say something else."""


def deliver(graph: Stepped, landing: LandingFolder) -> None:
    """Two instances say one thing, a newer third one another; each with a date and time that belong together.

    Of two attributes the oldest and the newest say different things, and the one between them nothing.
    """
    for number, said in enumerate(("Thorax", "Thorax ", "Abdomen"), 1):
        day, hour = ("20240101", "10") if number < 3 else ("20240102", "11")
        own: dict[str, Any] = {"StudyDate": day, "StudyTime": hour, "SeriesDescription": said.strip()}
        own |= {1: {"StudyID": "9", "AccessionNumber": "1"}, 3: EVEN}.get(number, {})
        landing.put(f"{number}.dcm", dicom(1, 1, number, StudyDescription=said, **own), age_seconds=1_000 - number)
    step_through(graph, judges=False)  # which `verify` does


def shown(graph: Stepped) -> tuple[Any, ...]:
    (study,) = graph.rows(
        "SELECT StudyDescription, StudyDate::VARCHAR AS day, StudyTime, StudyID, AccessionNumber FROM study"
    )
    (series,) = graph.rows("SELECT SeriesDescription, StudyDescription FROM series")
    (fhir,) = graph.rows("SELECT resource ->> 'description' AS said FROM imaging_study")
    rows = graph.rows("SELECT attribute, shown_value, rule FROM conflict")
    assert {row["attribute"]: row["shown_value"] for row in rows} == {
        "StudyDescription": study["StudyDescription"],
        "StudyDate": study["day"],
        "StudyTime": study["StudyTime"],
        "SeriesDescription": series["SeriesDescription"],
        **EVEN,
    }
    assert {name: study[name] for name in EVEN} == EVEN, "of values that equally many tell the newest counts"
    assert study["StudyDescription"] == series["StudyDescription"] == fhir["said"]
    rules = {row["attribute"]: row["rule"] for row in rows}
    return study["StudyDescription"], study["day"], study["StudyTime"][:2], series["SeriesDescription"], rules


@pytest.mark.slow
def test_a_rule_that_is_changed_is_named_by_verify_and_made_good_by_it(states):
    graph, _, _ = states.begin(deliver)
    newest = dict.fromkeys(("StudyDescription", "StudyDate", "StudyTime", "SeriesDescription", *EVEN), "newest")
    assert shown(graph) == ("Abdomen", "2024-01-02", "11", "Abdomen", newest)
    assert [one.rule for one in verify(graph.lake, graph.settings).findings if not one.holds] == []

    other = graph.settings.model_copy(update={"curation": CurationSettings.model_validate(FREQUENT)})
    found = verify(graph.lake, other)
    assert {one.rule for one in found.findings if not one.holds} == {"series", "study", "conflict"}
    with RunContext(other) as work:
        rebuild(work, found.studies)
    # files of NDJSON are written again by `verify --fix` alone, which then looks once more
    assert [one.rule for one in verify(graph.lake, other).findings if not one.holds] == ["lines"]
    frequent = {name: "newest" if name == "SeriesDescription" else "most_frequent" for name in newest}
    assert shown(graph) == ("Thorax", "2024-01-01", "10", "Abdomen", frequent)


@pytest.mark.parametrize(
    "wrong",
    [
        {"conflict_rule": "oldest"},
        {"conflict_rule": "source_rank"},
        {"source_rank": ["a"]},
        {"conflict_rule": "source_rank", "source_rank": ["a", "a"]},
    ],
    ids=str,
)
def test_a_rule_that_is_none_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError, match=r"conflict_rule|source_rank"):
        CurationSettings.model_validate(wrong)


def test_a_rule_for_what_no_study_chooses_is_refused_with_what_to_give():
    with pytest.raises(SettingsError, match=r"attribute_rules names StudyTime.*Give keywords"):
        Choice.of(CurationSettings(attribute_rules={"StudyTime": "newest"}))
