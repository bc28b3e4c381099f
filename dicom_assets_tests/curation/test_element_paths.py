"""Headers cut into elements: as many, and the same, as whoever parses each header whole finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.curation.element_paths import DEPTH, Element, take_apart

CREATORS = ("00290010", "00290011", "20050010")


def parsed(headers: Sequence[str]) -> tuple[Counter[Any], Counter[str]]:
    """Occurrences by path, VR and what is said, and headers by path, in the plain way."""
    occurrences: Counter[Any] = Counter()
    present: Counter[str] = Counter()

    def walk(data: Mapping[str, Any], above: list[str], met: set[str]) -> None:
        creators: dict[str, str] = {}
        for tag in [one for one in CREATORS if one in data]:
            name = data[tag]["Value"][0]
            creators[tag[:4] + tag[6:]] = name + (
                " (2)" if tag == "00290011" and creators.get("002910") == name else ""
            )
        for tag, one in data.items():
            name = tag
            if tag in CREATORS:
                name = f"{tag[:4]}00xx {creators[tag[:4] + tag[6:]]}"
            elif int(tag[3], 16) % 2:
                creator = creators.get(tag[:4] + tag[4:6])
                name = f"{tag[:4]}xx{tag[6:]} {creator}" if creator else tag
            path = ".".join([*above[:DEPTH], *["*"][: len(above) > DEPTH], name])
            met.add(path)
            items = one.get("Value", []) if one["vr"] == "SQ" else None
            said = len(items) if items is not None else {key: one[key] for key in one if key != "vr"}
            occurrences[path, one["vr"], orjson.dumps(said)] += 1
            for item in items or []:
                walk(item, [*above, name], met)

    for header in headers:
        met: set[str] = set()
        walk(orjson.loads(header), [], met)
        present.update(met)
    return occurrences, present


def cut(headers: Sequence[str]) -> tuple[Counter[Any], Counter[str]]:
    """The same, as the elements tell it."""
    occurrences: Counter[Any] = Counter()
    present: Counter[str] = Counter()
    for _, element, count, new in take_apart(["unit"] * len(headers), headers):
        said = element.items if element.items is not None else orjson.loads(f"{{{element.said}}}")
        occurrences[element.path, element.vr, orjson.dumps(said)] += count
        present[element.path] += new
    return occurrences, present


# what stands in headers and could be taken for the end of something
ODD = ['},"', "}]}", '":{"vr":"', ']}},{"00080005', "\\", '\\"]', "null", "a,b", "", "é\u2028", '{"vr":"SQ","Value":[{']
texts = st.one_of(st.sampled_from(ODD), st.text(max_size=6))
leaves = st.one_of(
    st.just({"vr": "LO"}),
    st.builds(
        lambda values: {"vr": "LO", "Value": values}, st.lists(st.one_of(st.none(), texts), min_size=1, max_size=3)
    ),
    st.builds(lambda values: {"vr": "DS", "Value": values}, st.lists(st.integers(-9, 9), min_size=1, max_size=3)),
    st.builds(lambda name: {"vr": "PN", "Value": [{"Alphabetic": name}, {"Ideographic": name}]}, texts),
    st.just({"vr": "PN", "Value": [{}]}),
    st.builds(lambda length: {"vr": "OW", "BulkDataURI": f"?offset=12&length={length}"}, st.integers(0, 99)),
    st.just({"vr": "OB", "InlineBinary": "AAE="}),
    st.just({"vr": "SQ", "Value": []}),
    st.just({"vr": "SQ"}),
)
tags = st.sampled_from(["00080005", "00080018", "00100010", "00291008", "00291108", "20051001", "7FE00010"])


def data_sets(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    sequences = st.builds(lambda items: {"vr": "SQ", "Value": items}, st.lists(below, min_size=1, max_size=2))
    creators = st.dictionaries(
        st.sampled_from(CREATORS),
        st.builds(lambda one: {"vr": "LO", "Value": [one]}, st.sampled_from(["MAKER", "A. B."])),
    )
    plain = st.dictionaries(tags, leaves, max_size=4)
    nested = st.dictionaries(st.sampled_from(["00081140", "0040A730", "20051080"]), sequences, max_size=2)
    return st.builds(lambda *parts: dict(sorted({k: v for part in parts for k, v in part.items()}.items())),
                     creators, plain, nested)  # fmt: skip


headers = st.recursive(st.just({}), data_sets, max_leaves=8)


@given(st.lists(headers, min_size=1, max_size=3))
@settings(max_examples=150)
def test_what_is_cut_is_what_is_parsed(drawn):
    written = [orjson.dumps(one).decode() for one in drawn]
    assert cut(written) == parsed(written)


def test_headers_that_others_have_written_tell_the_same():
    ours = '{"00080005":{"vr":"CS","Value":["ISO_IR 100"]},"00081140":{"vr":"SQ","Value":[{"00081150":{"vr":"UI"}}]}}'
    theirs = """{"00081140": {"Value": [{"00081150": {"vr": "UI"}}], "vr": "SQ"},
                 "00080005": {"Value": ["ISO_IR 100"], "vr": "CS"}}"""
    assert cut([ours, theirs]) == cut([ours, ours])


@pytest.mark.parametrize("text", ["", "no", '["a"]', '{"00080005":3}', '{"00080005":{"vr":"CS"}'])
def test_what_is_no_header_is_refused(text):
    with pytest.raises(ValueError, match="no JSON object of DICOM elements"):
        take_apart([1], [text])


def element(said: str, vr: str = "LO") -> Element:
    (found,) = take_apart([1], [f'{{"00080005":{{"vr":"{vr}"{"," if said else ""}{said}}}}}'])
    return found.element


@pytest.mark.parametrize(
    ("said", "vr", "length"),
    [
        ('"Value":["abc","de"]', "LO", 6),
        ('"Value":[","]', "LO", 1),
        ('"Value":["a\\\\b"]', "LT", 3),
        ('"Value":[null,"de"]', "LO", 3),
        ('"Value":[1.5,-2]', "DS", 6),
        ('"Value":[{"Alphabetic":"A^B"}]', "PN", 3),
        ('"Value":[{"Alphabetic":"A","Ideographic":"B"}]', "PN", 3),
        ('"BulkDataURI":"?offset=7&length=1200"', "OW", 1200),
        ('"InlineBinary":"AAE="', "OB", 2),
        ('"Value":[{},{}]', "SQ", 2),
    ],
)
def test_a_length_is_that_of_the_value_and_not_of_its_json(said, vr, length):
    assert element(said, vr).length == length


@pytest.mark.parametrize("said", ["", '"Value":[]', '"Value":[""]', '"Value":[null]', '"BulkDataURI":"?length=0"'])
def test_what_has_no_value_is_empty(said):
    assert element(said).is_empty
