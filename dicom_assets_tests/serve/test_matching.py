"""What a key matches, by VR: the SQL agrees with a matcher that is written from PS3.4 C.2.2.2 alone."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.dicom.columns import converter_of
from dicom_assets.schema.attributes import TYPE_OF_VR
from dicom_assets.serve.matching import condition
from dicom_assets.serve.problems import Refusal

DATABASE = duckdb.connect()


def matched(vr: str, stored: Sequence[Any], *texts: str, fuzzy: bool = False, multiple: bool = False) -> list[Any]:
    """Which of some values, as objects have them, a key matches by the SQL."""
    convert = converter_of(vr)
    kind = TYPE_OF_VR.get(vr, pa.string())
    values = [[convert(one) for one in each] if multiple else convert(each) for each in stored]
    made = condition("v", vr, texts, "Key", multiple=multiple, fuzzy=fuzzy)
    if made is None:
        return list(stored)
    table = pa.table({"place": range(len(values)), "v": pa.array(values, pa.list_(kind) if multiple else kind)})
    with DATABASE.cursor() as connection:
        connection.register("stored", table)
        sql = f"SELECT place FROM stored WHERE {made.sql} ORDER BY place"
        return [stored[at] for (at,) in connection.execute(sql, made.parameters).fetchall()]


def refused(vr: str, *texts: str) -> str:
    """Why a key is refused."""
    with pytest.raises(Refusal) as refusal:
        condition("v", vr, texts, "Key")
    assert refusal.value.status == 400
    return refusal.value.sentence


def test_a_text_matches_as_it_is_written():
    assert matched("LO", ["CT chest", "CT CHEST", "xCT chest"], "CT chest") == ["CT chest"]
    assert matched("SH", ["a", "b"], " a ") == ["a"]


def test_an_empty_value_and_a_lone_asterisk_match_everything():
    for vr in ("LO", "PN", "DA", "UI", "IS", "TM", "CS"):
        assert condition("v", vr, [""], "Key") is None
        assert condition("v", vr, ["*"], "Key") is None


def test_wildcards_stand_for_characters_and_nothing_else_does():
    stored = ["100%", "100_", "100x", "10\\0", "100"]
    assert matched("LO", stored, "100?") == ["100%", "100_", "100x"]
    assert matched("LO", stored, "*%") == ["100%"]
    assert matched("LO", stored, "?0_") == []
    assert matched("LO", stored, "*\\*") == ["10\\0"]


@pytest.mark.parametrize("vr", ["DA", "TM", "DT", "UI", "IS", "DS", "AS", "US"])
def test_wildcards_are_refused_where_values_are_matched_whole(vr: str):
    assert "1.2" not in refused(vr, "1.2*")


def test_names_match_without_regard_to_case_and_accents():
    stored = ["Müller^Jörg", "MULLER^JORG^^", "Moeller^Jorg", "Łukasz^X"]
    assert matched("PN", stored, "muller^jorg") == ["Müller^Jörg", "MULLER^JORG^^"]
    assert matched("PN", stored, "MÜLL*") == ["Müller^Jörg", "MULLER^JORG^^"]
    assert matched("PN", stored, "müller^jörg=山田^太郎") == ["Müller^Jörg", "MULLER^JORG^^"]


@pytest.mark.parametrize("key", ["jo do", "Doe", "doe^john", "JOHN", "Jóh D"])
def test_fuzzy_every_word_begins_a_component(key: str):
    assert matched("PN", ["John^Doe"], key, fuzzy=True) == ["John^Doe"]


@pytest.mark.parametrize("key", ["ohn", "john x", "d o e", "doe%", "_oe"])
def test_fuzzy_what_begins_nothing_does_not_match(key: str):
    assert matched("PN", ["John^Doe"], key, fuzzy=True) == []


def test_fuzzy_wildcards_count():
    assert matched("PN", ["John^Doe", "Doe^John"], "*^doe", fuzzy=True) == ["John^Doe"]


def test_dates_match_whole_or_by_range():
    stored = ["20171231", "20180101", "20181231", "20190101"]
    assert matched("DA", stored, "20180101") == ["20180101"]
    assert matched("DA", stored, "20180101-20181231") == ["20180101", "20181231"]
    assert matched("DA", stored, "20181231-") == ["20181231", "20190101"]
    assert matched("DA", stored, "-20180101") == ["20171231", "20180101"]


@pytest.mark.parametrize(
    "key", ["-", "2018-13-45", "20181345", "2018", "20180101-20180102-", "--", "20180101-x", "٢٠١٨٠١٠١"]
)
def test_what_is_no_date_is_refused_without_repeating_it(key: str):
    sentence = refused("DA", key)
    assert sentence.startswith("Key: ")
    assert len(key) < 3 or key not in sentence


def test_a_time_matches_from_its_first_to_its_last_moment():
    stored = ["14", "1405", "140500", "140559.5", "140600", "235960"]
    assert matched("TM", stored, "1405") == ["1405", "140500", "140559.5"]
    assert matched("TM", stored, "14") == ["14", "1405", "140500", "140559.5", "140600"]
    assert matched("TM", stored, "140559-140600") == ["140559.5", "140600"]
    assert matched("TM", stored, "2359") == ["235960"]
    assert matched("TM", stored, "-140500") == ["14", "1405", "140500"]


def test_a_date_with_time_matches_whatever_its_precision():
    stored = ["2024", "20240131", "20240131140509.25+0100", "20240201"]
    assert matched("DT", stored, "202401") == ["2024", "20240131", "20240131140509.25+0100"]
    assert matched("DT", stored, "20240131140509.25") == ["20240131140509.25+0100"]
    assert matched("DT", stored, "20240131-") == ["20240131", "20240131140509.25+0100", "20240201"]
    assert matched("DT", stored, "20240131140509-0500-20240201") == ["20240131140509.25+0100", "20240201"]


def test_uids_and_code_strings_are_lists_of_which_any_matches():
    stored = ["1.2", "1.3", "1.20"]
    for texts in (("1.2,1.3",), ("1.2\\1.3",), ("1.2", "1.3")):
        assert matched("UI", stored, *texts) == ["1.2", "1.3"]
    assert matched("CS", [["CT", "SR"], ["MR"], ["US"]], "CT,MR", multiple=True) == [["CT", "SR"], ["MR"]]
    assert "more than once" in refused("LO", "a", "b")


def test_numbers_match_by_value():
    assert matched("DS", [1.0, 1.5, 10.0], "1") == [1.0]
    assert matched("DS", [1.0, 1.5, 10.0], "1.50") == [1.5]
    assert matched("IS", [1, 2], "+1") == [1]
    assert "number" in refused("IS", "1.5")
    assert "number" in refused("DS", "one")


def test_an_attribute_with_several_values_matches_by_one_of_them():
    stored = [["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY"]]
    assert matched("CS", stored, "PRIM*", multiple=True) == [stored[0]]
    assert matched("DS", [[0.5, 0.7], [0.7]], "0.5", multiple=True) == [[0.5, 0.7]]


def _folded(text: str) -> str:
    marks = [c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)]
    return "".join(marks).lower()


def _like(pattern: str, text: str) -> bool:
    # fnmatch knows brackets too, which a DICOM pattern does not.
    translated = fnmatch.translate(
        re.sub(r"[\[\]]", lambda found: f"[{found[0]}]" if found[0] == "[" else "]", pattern)
    )
    return re.match(translated, text) is not None


def _by_words(key: str, name: str) -> bool:
    words = re.split(r"[\^\s,]+", _folded(name))
    return all(any(one.startswith(part) for one in words) for part in re.split(r"[\^\s,]+", _folded(key)) if part)


ALPHABET = st.text("abAB^é%_ \\[]'", max_size=6)
KEYS = st.text("abAB^é%_ \\[]'*?", min_size=1, max_size=5).filter(lambda key: key.strip() not in ("", "*"))


@given(st.lists(ALPHABET.filter(str.strip), max_size=8), KEYS)
def test_wildcards_of_texts_agree_with_a_plain_matcher(stored: list[str], key: str):
    wanted = key.strip(" ")
    agree("LO", stored, key, lambda text: _like(wanted, text.strip()))


@given(st.lists(ALPHABET.filter(str.strip), max_size=8), KEYS, st.booleans())
def test_names_agree_with_a_plain_matcher(stored: list[str], key: str, fuzzy: bool):
    wanted = _folded(key.strip(" "))

    def plain(name: str) -> bool:
        name = name.strip()
        if "*" in key or "?" in key:
            return _like(wanted, _folded(name))
        return _by_words(wanted, name) if fuzzy else _folded(name).rstrip("^ ") == wanted.rstrip("^ ")

    agree("PN", stored, key, plain, fuzzy=fuzzy)


CLOCKS = st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999))
"""Hour, minute, second, millionths."""
TIMES = st.tuples(CLOCKS, st.integers(1, 4)).map(
    lambda told: ("{:02d}{:02d}{:02d}.{:06d}".format(*told[0]))[: (2, 4, 6, 13)[told[1] - 1]]
)


def _moment(text: str, fill: str) -> str:
    return text + fill[len(text) :]


@given(st.lists(TIMES, max_size=8), TIMES, TIMES, st.sampled_from(["a", "a-b", "a-", "-b"]))
def test_times_agree_with_a_plain_matcher(stored: list[str], first: str, last: str, form: str):
    key = form.replace("a", first).replace("b", last)
    low = _moment(first, "000000.000000") if form != "-b" else ""
    end = first if form == "a" else last
    high = _moment(end, "235960.999999") if form != "a-" else "3"
    agree("TM", stored, key, lambda text: low <= _moment(text, "000000.000000") <= high)


def agree(vr: str, stored: Sequence[str], key: str, plain: Callable[[str], bool], *, fuzzy: bool = False) -> None:
    """Both find the same."""
    assert matched(vr, stored, key, fuzzy=fuzzy) == [one for one in stored if plain(one)]
