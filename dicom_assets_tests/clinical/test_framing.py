"""Resources come out of a file whatever form it has; what is broken stays where it is."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.clinical import framing
from dicom_assets.clinical.framing import Frame, NotFhir, frames, looks_like_fhir
from dicom_assets.storage.byte_ranges import BytesSource

PATIENT = {"resourceType": "Patient", "id": "p", "name": [{"text": 'quote " brace { bracket ] backslash \\'}]}
LIST = {"resourceType": "List", "id": "l", "entry": [{"item": {"reference": "Patient/p"}}]}
BUNDLE = {
    "type": "collection",
    "entry": [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT},
        {"resource": LIST, "fullUrl": "urn:uuid:2", "link": [{"resource": {"resourceType": "Basic"}}]},
    ],
    "resourceType": "Bundle",
}


def read(data: bytes | str) -> list[Frame]:
    return list(frames(BytesSource(data.encode() if isinstance(data, str) else data)))


def ids(data: bytes | str) -> list[Any]:
    return [orjson.loads(f.data)["id"] if not f.fault else f.fault for f in read(data)]


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("byte_order_mark", ["", "\ufeff"])
def test_a_single_resource_an_array_and_a_bundle_are_told_apart_by_content(indent: int | None, byte_order_mark: str):
    for value, expected in (
        (PATIENT, ["p"]),
        (LIST, ["l"]),
        ([PATIENT, LIST], ["p", "l"]),
        (BUNDLE, ["p", "l"]),
        ([BUNDLE, PATIENT], ["p", "l", "p"]),
    ):
        assert ids(byte_order_mark + json.dumps(value, indent=indent)) == expected


def test_lines_of_ndjson_may_be_bundles_and_blank():
    lines = [json.dumps(PATIENT), "", json.dumps(BUNDLE), "\r", json.dumps(LIST)]
    assert ids("\n".join(lines)) == ["p", "p", "l", "l"]
    assert ids("\r\n".join(lines) + "\r\n") == ["p", "p", "l", "l"]


def test_pretty_printed_resources_may_follow_each_other():
    assert ids(json.dumps(PATIENT, indent=2) + "\n" + json.dumps(LIST, indent=2)) == ["p", "l"]


def test_a_broken_line_is_one_fault_and_the_rest_of_the_file_goes_on():
    assert ids('{"resourceType": "Pati\n' + json.dumps(PATIENT)) == ["not valid JSON", "p"]
    assert ids(json.dumps(PATIENT) + "\n{nonsense\n17\n" + json.dumps(LIST)) == [
        "p",
        "not valid JSON",
        "not a JSON object",
        "l",
    ]


@pytest.mark.parametrize("order", [["resourceType", "entry"], ["entry", "resourceType"]])
def test_a_bundle_that_is_cut_gives_its_whole_entries_and_one_fault(order: list[str]):
    written = json.dumps({name: BUNDLE[name] for name in order}, indent=1)
    cut = written[: written.index('"urn:uuid:2"')]
    assert ids(cut) == ["p", "the file ends inside a Bundle"]


def test_an_entry_without_a_resource_is_a_fault():
    bundle = {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE"}}, {"resource": PATIENT}]}
    assert ids(json.dumps(bundle)) == ["the entry holds no resource", "p"]


def test_bundles_in_bundles_are_opened_but_not_for_ever():
    nested: dict[str, Any] = PATIENT
    for _ in range(2):
        nested = {"resourceType": "Bundle", "entry": [{"resource": nested}]}
    assert ids(json.dumps(nested)) == ["p"]
    for _ in range(3):
        nested = {"resourceType": "Bundle", "entry": [{"resource": nested}]}
    assert "deep" in ids(json.dumps(nested))[0]


def test_the_bytes_of_a_resource_stay_as_they_were_written():
    written = b'{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.50}, "x" :  2e0}'
    assert read(written)[0].data == written
    bundle = b'{"resourceType":"Bundle","entry":[{"resource": ' + written + b"}]}"
    assert read(bundle)[0].data == written
    assert read(b"[" + written + b"]")[0].data == written


def test_the_full_url_of_an_entry_is_kept():
    assert [frame.full_url for frame in read(json.dumps(BUNDLE))] == ["urn:uuid:1", "urn:uuid:2"]


@pytest.mark.parametrize("data", [b"", b"   ", b"hello", b"PatientID,Age\n1,2\n", b'"text"'])
def test_what_is_no_json_is_refused(data: bytes):
    with pytest.raises(NotFhir):
        read(data)


_P, _Q = b'{"resourceType": "Patient", "id": "p"}', b'{"resourceType": "Patient", "id": "q"}'


@pytest.mark.parametrize(
    "data, sound",
    [
        (_P + b" junk " + _Q, 2),
        (_P + b'" ' + _Q, 1),  # a quote too many takes the rest with it
        (_P + b'ntifier": [{"value": "P1"}]}\r\n{"id": "r", "resourceTy}pe": "Basic"}\n', 1),
        (_P + b"} " + _Q, 2),
        (b"[" + _P + b", 5, " + _Q + b"]", 2),
        (b"[" + _P + b", " + _Q + b"] and more", 2),
        (b'{"resourceType": "Bundle", "entry": [{"resource": ' + _P + b'}, "x", {"resource": ' + _Q + b"}]}", 2),
        (b'{"resourceType": "Bundle", "entry": [7, {"resource": ' + _P + b"}]}", 1),
        (b'{"resourceType": "Bundle", junk "entry": [{"resource": ' + _P + b"}]}", 1),
        (b'{"resourceType": "Bundle", "entry": [{"resource": ' + _P + b'}], "total": }', 1),
        (b'{"resourceType": "Bundle", "entry": [1, 2]}', 0),
        (b'{"resourceType": "Bundle", "entry": {"resource": ' + _P + b"}}", 0),
        (b'{"resourceType": "Bundle", "\\u0065ntry": [{"resource": ' + _P + b"}]}", 0),
    ],
)
def test_what_stands_between_records_or_around_them_and_is_none_is_one_fault(data: bytes, sound: int):
    found = read(data)
    assert sum(frame.fault is None for frame in found) == sound
    assert sum(frame.fault is not None for frame in found) == 1


def test_space_commas_marks_and_fillings_between_records_are_no_fault():
    between = b" ,\xef\xbb\xbf\t"
    assert ids(_P + between + _Q + b"\n\x1a" + bytes(100)) == ["p", "q"]
    assert ids(b"[" + _P + between + _Q + b",]\n[" + _P + b"]") == ["p", "q", "p"]
    assert ids(b'{"resourceType": "Bundle", "entry": [{"resource": ' + _P + b"},]}") == ["p"]


@given(
    st.lists(
        st.sampled_from([_P, b"{}", b"{", b"}", b"[", b"]", b",", b" ", b"\n", b'"', b"\\", b"x", b"7"]), max_size=9
    )
)
@settings(max_examples=150, deadline=None)
def test_what_is_in_no_record_is_a_fault(pieces: list[bytes]):
    written = b"[" + b"".join(pieces)
    try:
        found = read(written)
    except NotFhir:
        return
    if all(frame.fault is None for frame in found):
        for frame in found:
            before, _, after = written.partition(frame.data)
            assert not before.strip(b"[], \n")
            written = after
        assert not written.strip(b"[], \n")


def test_a_bundle_whose_keys_are_written_with_escapes_is_one():
    assert ids(b'{"resource\\u0054ype": "Bun\\u0064le", "entry": [{"resource": ' + _P + b"}]}") == ["p"]


def test_fhir_is_recognised_by_its_first_bytes():
    assert looks_like_fhir(json.dumps(BUNDLE, indent=3).encode())
    assert looks_like_fhir(b"\xef\xbb\xbf \n" + json.dumps([PATIENT]).encode())
    assert not looks_like_fhir(b'{"a": 1}')
    assert not looks_like_fhir(b"PatientID,resourceType\n")


@pytest.mark.parametrize("chunk", [1, 2, 3, 17, 4096, 4097, 5000])
def test_where_a_chunk_ends_makes_no_difference(chunk: int, monkeypatch: pytest.MonkeyPatch):
    long_text = {"resourceType": "Binary", "id": "b", "data": 'x\\"{[' * 3_000}
    written = json.dumps([BUNDLE, long_text, LIST], indent=1).encode()
    monkeypatch.setattr(framing, "CHUNK", chunk)
    assert ids(written) == ["p", "l", "b", "l"]


def test_a_line_longer_than_a_chunk_is_read_where_it_lies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(framing, "CHUNK", 64)
    monkeypatch.setattr(framing, "LINE", 200)
    long_line = json.dumps({"resourceType": "Binary", "id": "b", "data": "y" * 500})
    long_bundle = json.dumps(
        {"resourceType": "Bundle", "entry": [{"resource": {**PATIENT, "id": str(n)}} for n in range(9)]}
    )
    text = "\n".join([json.dumps({"resourceType": "Basic", "id": "a"}), long_line, long_bundle, json.dumps(LIST)])
    assert ids(text) == ["a", "b", *map(str, range(9)), "l"]


_names = st.sampled_from(["a", "entry", "resource", "resourceType", 'q"', "{", "\\"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)


@given(
    contents=st.lists(st.dictionaries(_names, _json, max_size=4), min_size=1, max_size=4),
    form=st.sampled_from(["lines", "array", "pretty array", "bundle", "pretty bundle"]),
    chunk=st.integers(1, 300),
)
@settings(max_examples=150, deadline=None)
def test_every_resource_comes_out_whatever_is_in_it_and_around_it(
    contents: list[dict[str, Any]], form: str, chunk: int
):
    resources = [{**content, "resourceType": "Basic", "id": str(n)} for n, content in enumerate(contents)]
    indent = 1 if "pretty" in form else None
    if form == "lines":
        written = "\n".join(json.dumps(one) for one in resources)
    elif "array" in form:
        written = json.dumps(resources, indent=indent)
    else:
        written = json.dumps(
            {"entry": [{"resource": one} for one in resources], "resourceType": "Bundle"}, indent=indent
        )
    kept = framing.CHUNK
    framing.CHUNK = chunk
    try:
        found = [json.loads(frame.data) for frame in read(written)]
    finally:
        framing.CHUNK = kept
    assert found == [json.loads(json.dumps(one)) for one in resources]
