"""Ids are given out once, never twice the same, and surrogates show that they are surrogates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.omop.integers import (
    LARGEST,
    Domain,
    IdentifiersExhausted,
    allocate,
    order_key,
    person_key,
    series_key,
)

Wanted = list[tuple[str, str]]
_wanted = st.lists(
    st.tuples(st.sampled_from([str(domain) for domain in Domain]), st.sampled_from("abcdefgh")), max_size=20
)


@given(st.lists(_wanted, max_size=6))
@settings(deadline=None)
def test_an_id_never_changes_and_never_stands_for_two_things(batches: list[Wanted]):
    known: dict[tuple[str, str], int] = {}
    last: dict[str, int] = {}
    for number, wanted in enumerate(batches):
        rows = allocate(wanted, known, last, f"b{number}").to_pylist()
        assert all((row["domain"], row["natural_key"]) not in known for row in rows)
        known |= {(row["domain"], row["natural_key"]): row["id"] for row in rows}
        for (domain, _), one in known.items():
            last[domain] = max(last.get(domain, 0), one) if domain == Domain.IMAGE else min(last.get(domain, 0), one)
        assert set(wanted) <= known.keys()
        assert allocate(wanted, known, last, "again").num_rows == 0
    assert len({(domain, one) for (domain, _), one in known.items()}) == len(known)


def test_images_count_upwards_and_surrogates_downwards():
    rows = allocate([(Domain.IMAGE, "a"), (Domain.PERSON, "a"), (Domain.IMAGE, "b"), (Domain.PERSON, "b")], {}, {}, "x")
    assert rows["id"].to_pylist() == [1, -1, 2, -2]


def test_the_end_of_the_integers_is_an_error_not_a_wrap():
    assert allocate([(Domain.IMAGE, "a")], {}, {"image_occurrence": LARGEST - 1}, "x")["id"].to_pylist() == [LARGEST]
    with pytest.raises(IdentifiersExhausted):
        allocate([(Domain.IMAGE, "a")], {}, {"image_occurrence": LARGEST}, "x")
    with pytest.raises(IdentifiersExhausted):
        allocate([(Domain.PERSON, "a")], {}, {"person": -LARGEST}, "x")


def test_a_person_is_the_identifier_with_its_issuer():
    one = person_key("pacs", "007", "HOSP", "s1", False)
    assert one == person_key("archive", " 007 ", "HOSP", "s2", False)
    assert one != person_key("pacs", "007", "CLINIC", "s1", False)
    assert one != person_key("pacs", "7", "HOSP", "s1", False)


def test_without_an_issuer_an_identifier_is_known_within_its_source_alone():
    one = person_key("pacs", "007", None, "s1", False)
    assert one == person_key("pacs", "007", " ", "s2", False)
    assert one != person_key("archive", "007", None, "s1", False)
    assert one != person_key("pacs", "007", "pacs", "s1", False)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_empty_identifiers_are_never_one_person(empty: str | None):
    assert person_key("pacs", empty, "HOSP", "s1", False) != person_key("pacs", empty, "HOSP", "s2", False)


def test_a_study_with_several_patients_is_a_person_of_its_own():
    assert person_key("pacs", "1", "H", "s1", True) != person_key("pacs", "1", "H", "s1", False)


def test_orders_are_accession_numbers_of_a_person_or_studies():
    assert order_key("p1", "A1", "s1") == order_key("p1", "A1 ", "s2")
    assert order_key("p1", "A1", "s1") != order_key("p2", "A1", "s1")
    assert order_key("p1", None, "s1") != order_key("p1", "", "s2")


def test_natural_keys_do_not_run_into_each_other():
    assert series_key("a", "1.2", "3") != series_key("a", "1", "2.3")
    assert person_key("a", "b", "c", "s", False) != person_key("a", "bc", None, "s", False)
