"""The overview: what a lake holds, and plots of how it has grown that say the same in words and numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import date

import pytest

from dicom_assets.catalogue.growth import MOST_PERIODS, Course, course
from dicom_assets.catalogue.plots import scale, stacked
from dicom_assets_tests.catalogue.kept_books import Kept
from dicom_assets_tests.catalogue.shown_lake import TOKENS, words
from dicom_assets_tests.serve.asking import bearer

SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_tells_what_there_is_how_old_it_is_and_how_it_has_grown(kept: Kept):
    page = kept.plain.get("/overview")
    text = words(page)
    assert "3 things wait for a person." in text
    assert "Patients 4 Studies 5 Series 7 Instances 11" in text
    assert "1 study names no patient." in text
    assert "Latest study is of 2024-01-31" in text
    assert "4 studies from 2019 to 2024, by year; most in 2024: 3." in text
    assert "Not drawn, for want of a date: 1." in text
    assert re.search(r"19 objects from \S+ to \S+, by day", text)
    assert "<B>" not in page.text and "&lt;B&gt;" in page.text


def test_who_sees_some_sources_sees_only_what_is_theirs(kept: Kept):
    text = words(kept.client(tokens=TOKENS).get("/overview", headers=bearer("FIRST")))
    assert "Patients 3 Studies 3 Series 4 Instances 7" in text and "landing2" not in text
    assert "1 thing waits for a person." in text
    assert re.search(r"15 objects from", text)


def test_a_condition_narrows_studies_and_leaves_the_books_out_with_a_sentence(kept: Kept):
    page = kept.client(tokens=TOKENS).get("/overview", headers=bearer("SOME"))
    text = words(page)
    assert "Studies 4" in text and "no patient" not in text
    assert "bounded by a condition over studies" in text and "Objects by when" not in text and "wait" not in text


def drawn(found: Course) -> list[ElementTree.Element]:
    """The plots of a course, parsed."""
    return [*ElementTree.fromstring(f'<g xmlns="http://www.w3.org/2000/svg">{stacked(found, "p", "T", "things")}</g>')]


@pytest.mark.parametrize(("first", "last", "unit"), [
    ((2026, 1, 1), (2026, 2, 5), "day"), ((2025, 1, 1), (2026, 2, 5), "month"), ((1995, 1, 1), (2026, 2, 5), "year"),
    ((1950, 1, 1), (2026, 2, 5), "2 years"), ((1, 1, 1), (9999, 1, 1), "250 years"),
])  # fmt: skip
def test_every_count_is_drawn_in_a_period_short_enough_to_be_told_apart(first, last, unit):
    counted = [(date(*first), "CT", 3), (date(*last), "MR", 4), (date(*last), "CT", 2), (None, "CT", 5)]
    found = course(counted)
    assert found.unit == unit and len(found.periods) <= MOST_PERIODS and found.left_out == 5
    assert sum(found.totals) == 9 and found.totals[0] == 3 and found.totals[-1] == 6
    for plot in drawn(found):
        bars = plot.findall(f"{SVG}rect")
        assert sorted((bar.findtext(f"{SVG}title") or "").rpartition(" ")[2] for bar in bars) == ["2", "3", "4"]
        heights = {bar.findtext(f"{SVG}title"): float(bar.get("height", 0)) for bar in bars}
        at_first, at_last = (value for name, value in heights.items() if name.endswith((": CT 3", ": CT 2")))
        assert at_first / at_last == pytest.approx(1.5, abs=0.01)


def test_a_plot_has_a_title_words_marks_and_names_that_stay_within_it():
    found = course([(date(2000 + n, 1, 1), "CT", n) for n in range(1, 20)])
    for plot in drawn(found):
        assert plot.get("role") == "img" and plot.findtext(f"{SVG}title") == "T"
        assert "190 things from 2001 to 2019, by year; most in 2019: 19. By kind: CT 190." in (
            plot.findtext(f"{SVG}desc") or ""
        )
        _, _, width, height = map(float, plot.get("viewBox", "").split())
        texts = plot.findall(f"{SVG}text")
        assert {"0", "5", "10", "15", "20", "2001"} <= {one.text for one in texts}
        assert all(0 <= float(one.get("x", -1)) <= width and 0 < float(one.get("y", -1)) <= height for one in texts)


def test_kinds_beyond_the_most_frequent_are_put_together_and_none_is_lost():
    found = course([(date(2024, 1, 1), f"K{n}", n) for n in range(1, 12)])
    assert found.kinds == ["K11", "K10", "K9", "K8", "K7", "K6", "others"]
    assert sum(found.totals) == 66 and found.counts["others"] == [15]


@pytest.mark.parametrize("most", [0, 1, 2, 5, 6, 7, 19, 99, 101, 12_345, 10_000_000])
def test_marks_of_an_axis_are_few_round_and_reach_the_highest_bar(most: int):
    marks = scale(most)
    assert 2 <= len(marks) <= 6 and marks[0] == 0 and marks[-1] >= max(most, 1)
    assert str(marks[1]).rstrip("0") in ("1", "2", "5")
