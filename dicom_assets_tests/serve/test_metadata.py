"""Metadata of studies, series and instances: stored headers, spliced."""

from __future__ import annotations

import io
import json
import re
import shutil
import time

import pyarrow as pa
import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dicom_assets.lake.delta import Lake as Tables
from dicom_assets.lake.query import arrow, connect
from dicom_assets.serve import study_rows
from dicom_assets.serve.app import make_app
from dicom_assets.serve.splicing import Subject, metadata
from dicom_assets_tests.serve import retrievable as made
from dicom_assets_tests.serve.retrievable import PIXELS, PRIVATE, Lake, path
from dicom_assets_tests.support.dicoms import uid


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def of_instance(client: TestClient, study: int, series: int = 1, instance: int = 1) -> dict:
    answer = client.get(path(study, series, instance) + "/metadata")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    (one,) = answer.json()
    return one


@pytest.mark.parametrize("series", range(1, 9))
def test_metadata_say_what_pydicom_reads_in_the_file(client: TestClient, retrievable: Lake, series: int):
    got = of_instance(client, 1, series)
    wanted = json.loads(
        pydicom.dcmread(io.BytesIO(retrievable.files[1, series, 1]), stop_before_pixels=True).to_json(
            bulk_data_element_handler=lambda element: "somewhere", bulk_data_threshold=64
        )
    )
    for tag in ("7FE00010", "00081190", "00083002"):
        got.pop(tag)
    assert [one for one in got if one.startswith("0002")] == []
    assert list(got) == sorted(got) == sorted(wanted)
    simple = {tag: one for tag, one in wanted.items() if one["vr"] not in ("OB", "SQ")}
    assert {tag: got[tag] for tag in simple} == simple


def test_a_study_has_all_of_its_instances_each_with_its_own_address(client: TestClient, retrievable: Lake):
    for what, count in ((path(1), 8), (path(1, made.RLE), 1), (path(made.MIDDLE), 5), (path(made.ZIPPED), 3)):
        found = client.get(what + "/metadata").json()
        assert len(found) == count
        for one in found:
            study, series, instance = (one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
            (address,) = one["00081190"]["Value"]
            assert address == f"http://localhost/dicom-web/studies/{study}/series/{series}/instances/{instance}"
            assert client.get(address + "/metadata").json() == [one]


def test_the_transfer_syntax_that_is_stored_is_told(client: TestClient):
    assert of_instance(client, 1, made.RLE)["00083002"] == {"vr": "UI", "Value": ["1.2.840.10008.1.2.5"]}


def test_references_are_absolute_and_lead_to_values_at_any_depth(client: TestClient):
    for series in (made.NATIVE, made.DEFLATED):
        one = of_instance(client, 1, series)
        inner = one["0040A043"]["Value"][0]["00420011"]
        for element, value in ((one["00420011"], PRIVATE), (inner, PRIVATE + b"in")):
            assert client.get(element["BulkDataURI"]).content == value
        assert client.get(one["7FE00010"]["BulkDataURI"]).content == PIXELS.astype("<u2").tobytes()


def test_addresses_are_those_by_which_the_client_came(client: TestClient):
    of_source = path(1, 1, 1).replace("/dicom-web", "/dicom-web/landing")
    (one,) = client.get(of_source + "/metadata").json()
    assert one["00081190"]["Value"][0] == f"http://localhost{of_source}"
    assert one["7FE00010"]["BulkDataURI"].startswith(f"http://localhost{of_source}/bulkdata/")


def test_corrected_values_are_those_that_search_says(client: TestClient):
    one = of_instance(client, made.CORRECTED)
    assert one["00100020"] == {"vr": "LO", "Value": ["TRUE"]}
    assert one["00080050"] == {"vr": "SH", "Value": ["A-9"]}
    assert list(one) == sorted(one)
    assert of_instance(client, made.PLAIN)["00100020"]["Value"] == [f"P{made.PLAIN:04d}"]


@pytest.mark.parametrize("together", [study_rows.MOST, 3])
def test_series_and_instances_have_what_the_study_has_of_them_however_large_it_is(
    retrievable: Lake, monkeypatch: pytest.MonkeyPatch, together: int
):
    monkeypatch.setattr(study_rows, "MOST", together)
    client = retrievable.client()
    for what in (path(1), path(made.MIDDLE)):
        elements = client.get(what + "/metadata").json()
        for tags in (["0020000E"], ["0020000E", "00080018"]):
            for uids in [[one[tag]["Value"][0] for tag in tags] for one in elements]:
                found = client.get(f"{what}/series/{'/instances/'.join(uids)}/metadata").json()
                assert found == [one for one in elements if [one[tag]["Value"][0] for tag in tags] == uids]
    assert client.get(path(1, 99) + "/metadata").status_code == 404


def test_an_etag_spares_who_has_it_the_answer(client: TestClient):
    what = path(made.MIDDLE) + "/metadata"
    first = client.get(what)
    etag = first.headers["etag"]
    assert etag.startswith('W/"')
    for told in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        again = client.get(what, headers={"If-None-Match": told})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(what, headers={"If-None-Match": 'W/"other"'}).status_code == 200
    assert client.get(path(made.PLAIN) + "/metadata").headers["etag"] != etag


def test_head_says_what_get_would_without_a_body(client: TestClient):
    answer = client.head(path(1) + "/metadata")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == client.get(path(1) + "/metadata").headers["etag"]


def test_what_is_not_there_is_not_found(client: TestClient):
    for what in (path(99), path(1, 99), path(1, 1, 99), path(2, 1, 1).replace(uid(2, 1), uid(1, 1))):
        assert client.get(what + "/metadata").status_code == 404


def test_other_media_types_than_json_are_not_acceptable(client: TestClient):
    for accept, status in (
        ("application/json", 200),
        ("application/dicom+json", 200),
        ("*/*", 200),
        ("application/dicom+xml, application/*;q=0.2", 200),
        ("image/gif", 406),
        ('multipart/related; type="application/dicom+xml"', 406),
    ):
        assert client.get(path(1, 1, 1) + "/metadata", headers={"Accept": accept}).status_code == status
    assert client.get(path(1, 1, 1) + "/metadata?accept=application/dicom+json").status_code == 200
    assert client.get(path(1, 1, 1) + "/metadata?accept=image/gif").status_code == 406


# Rows of earlier releases


@pytest.fixture(scope="module")
def older(retrievable: Lake, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """The same lake, with rows as a release wrote them that left bulk data out and noted no places."""
    folder = tmp_path_factory.mktemp("older") / "lake"
    shutil.copytree(retrievable.settings.lake, folder)
    lake = Tables(str(folder))
    with connect(lake) as connection:
        rows = arrow(connection, "FROM flat_metadata")
    headers = [json.loads(one) for one in rows["header"].to_pylist()]
    for header in headers:
        for tag in ("7FE00010", "00420011"):
            header.pop(tag, None)
    rows = rows.set_column(rows.column_names.index("header"), "header", pa.array(list(map(json.dumps, headers))))
    for name in ("header_form", "pixel_offset", "pixel_length", "frame_offsets", "frame_lengths"):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.nulls(len(rows), rows.schema.field(name).type))
    lake.replace("flat_metadata", rows["batch_id"].unique().to_pylist(), rows)
    settings = retrievable.settings.model_copy(update={"lake": str(folder)})
    return TestClient(make_app(settings), base_url="http://localhost")


def test_a_header_without_bulk_data_gets_pixel_data_by_reference_where_it_says_that_there_are_pixels(
    older: TestClient,
):
    for series, vr in ((made.NATIVE, "OW"), (made.RLE, "OB")):
        element = of_instance(older, 1, series)["7FE00010"]
        assert element["vr"] == vr
        assert older.get(element["BulkDataURI"]).status_code == 200
    native = of_instance(older, 1, made.NATIVE)["7FE00010"]["BulkDataURI"]
    assert older.get(native).content == PIXELS.astype("<u2").tobytes()
    assert "7FE00010" not in of_instance(older, made.PLAIN)


@pytest.mark.parametrize("series", [made.NATIVE, made.RLE, made.BIG, made.DEFLATED])
def test_frames_of_such_a_row_are_found_in_the_object(older: TestClient, series: int):
    answer = older.get(
        path(1, series, 1) + "/frames/2",
        headers={"Accept": "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"},
    )
    assert answer.content == PIXELS[1].astype("<u2").tobytes()
    assert older.get(path(made.PLAIN, 1, 1) + "/frames/1").status_code == 404


# Splicing


_TAGS = st.integers(0x00080000, 0x0050FFFF).map(lambda tag: f"{tag:08X}")
_TEXTS = st.text(st.sampled_from('{}[]:,"\\ab\'ä"0081190BulkDataURI?offset=&'), max_size=12)
_LEAVES = st.one_of(
    _TEXTS.map(lambda text: {"vr": "LO", "Value": [text]}),
    st.lists(_TEXTS, max_size=2).map(lambda names: {"vr": "PN", "Value": [{"Alphabetic": one} for one in names]}),
    st.just({"vr": "UN"}),
    st.sampled_from(["", "&encapsulated=1", "&count=1&digest=ab"]).map(
        lambda more: {"vr": "OB", "BulkDataURI": f"?offset=12&length=345{more}"}
    ),
)
_ELEMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(st.dictionaries(_TAGS, inner, max_size=3), max_size=2).map(
        lambda items: {"vr": "SQ", "Value": items}
    ),
    max_leaves=8,
)


_REFERENCE = re.compile(r"\?offset=12&length=345[^\"]*")

_BRACE = {"00080080": {"vr": "LO", "Value": ["},"]}, "00100020": {"vr": "LO", "Value": ["1"]}}
"""A text that ends like an element that another one follows."""


@given(st.dictionaries(_TAGS, _ELEMENTS, max_size=6), st.booleans())
@example(_BRACE, True)
def test_whatever_a_header_says_it_is_the_same_behind_the_splice(elements: dict, with_meta: bool):
    meta = {"00020010": {"vr": "UI", "Value": ["1.2"]}, "00020016": {"vr": "AE", "Value": ['}{"']}} if with_meta else {}
    header = {**meta, **dict(sorted(elements.items()))}
    row = {"TransferSyntaxUID": "1.2.840.10008.1.2", "corrections": None}
    raw = metadata(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(), Subject("http://h/i", row))
    got = json.loads(raw)
    assert got.pop("00081190") == {"vr": "UR", "Value": ["http://h/i"]}
    assert got.pop("00083002") == {"vr": "UI", "Value": ["1.2.840.10008.1.2"]}
    for tag in ("00081190", "00083002"):
        elements.pop(tag, None)
    assert got == json.loads(_REFERENCE.sub("http://h/i/bulkdata/12-345", json.dumps(elements)))
    assert list(json.loads(raw)) == sorted(json.loads(raw))


def test_a_text_of_question_marks_costs_no_more_than_another_one():
    row = {"TransferSyntaxUID": "1.2.840.10008.1.2", "corrections": None}
    reference = b',"00420011":{"vr":"OB","BulkDataURI":"?offset=1&length=99"}}'
    header = b'{"00204000":{"vr":"LT","Value":["%b"]}' % (b"?" * 20_000_000) + reference
    began = time.process_time()
    raw = metadata(header, Subject("http://h/i", row))
    assert time.process_time() - began < 1
    assert raw.endswith(b'?"]},"00420011":{"vr":"OB","BulkDataURI":"http://h/i/bulkdata/1-99"}}')


def test_an_object_that_says_a_retrieve_url_of_its_own_gets_ours_instead():
    header = b'{"00081190":{"vr":"UR","Value":["http://elsewhere"]},"00100020":{"vr":"LO","Value":["1"]}}'
    row = {"TransferSyntaxUID": None, "corrections": None}
    assert json.loads(metadata(header, Subject("http://h/i", row))) == {
        "00081190": {"vr": "UR", "Value": ["http://h/i"]},
        "00100020": {"vr": "LO", "Value": ["1"]},
    }
