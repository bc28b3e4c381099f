"""What a message in a storage queue says: both schemas, every encoding, and messages that are none."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.landing.events import MessageUnreadable, listing, newest, read_message
from dicom_assets.landing.store import LISTING
from dicom_assets.storage.azure import Place

URL = "https://imaging.blob.core.windows.net/incoming/a%20b/x.dcm"


def grid(**data: Any) -> dict[str, Any]:
    """An event in Event Grid's own schema."""
    name = "/blobServices/default/containers/incoming/blobs/a b/x.dcm"
    return {"topic": "/subscriptions/0/…/imaging", "subject": name, "eventType": "Microsoft.Storage.BlobCreated",
            "eventTime": "2026-11-20T08:00:00.1234567Z", "id": "1", "dataVersion": "", "metadataVersion": "1",
            "data": _data(data)}  # fmt: skip


def cloud(**data: Any) -> dict[str, Any]:
    """An event in the schema of CloudEvents 1.0."""
    return {"specversion": "1.0", "id": "1", "source": "/subscriptions/0/…/imaging", "subject": "/blobServices/…",
            "type": "Microsoft.Storage.BlobCreated", "time": "2026-11-20T08:00:00.1234567Z",
            "data": _data(data)}  # fmt: skip


def _data(changed: dict[str, Any]) -> dict[str, Any]:
    plain = {"api": "PutBlob", "clientRequestId": "1", "requestId": "2", "eTag": "0x8D1", "contentType": "x/y",
             "contentLength": 5, "blobType": "BlockBlob", "url": URL, "sequencer": "0" * 26}  # fmt: skip
    return {name: value for name, value in (plain | changed).items() if value is not None}


@pytest.mark.parametrize("event", [grid(), cloud()])
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: [e]])
@pytest.mark.parametrize("encode", [lambda t: t, lambda t: base64.b64encode(t.encode()).decode()])
def test_both_schemas_plain_or_base64_alone_or_in_an_array(event: Any, wrap: Any, encode: Any) -> None:
    (found,) = read_message(encode(json.dumps(wrap(event))))
    assert found.place == Place("imaging", "incoming", "a b/x.dcm")
    assert found.uri == "az://imaging/incoming/a%20b/x.dcm"
    assert (found.etag, found.size) == ("0x8D1", 5)
    assert found.time == datetime(2026, 11, 20, 8, 0, 0, 123456, UTC)


def test_quotes_around_the_etag_do_not_matter() -> None:
    assert read_message(json.dumps(grid(eTag='"0x8D1"'))) == read_message(json.dumps(grid()))


@pytest.mark.parametrize(
    ("api", "host", "acts"),
    [
        ("PutBlob", "blob", True),
        ("PutBlockList", "blob", True),
        ("CopyBlob", "blob", True),
        ("CreateFile", "dfs", False),
        ("FlushWithClose", "dfs", True),
    ],
)
def test_only_what_leaves_a_complete_blob_counts(api: str, host: str, acts: bool) -> None:
    found = read_message(json.dumps(grid(api=api, url=URL.replace("blob", host))))
    assert [event.uri for event in found] == (["az://imaging/incoming/a%20b/x.dcm"] if acts else [])


def test_events_about_something_else_are_none() -> None:
    assert read_message(json.dumps(grid() | {"eventType": "Microsoft.Storage.BlobDeleted"})) == []


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{", "[1]", '"text"', "{}", "\x00", base64.b64encode(b"\xff\xfe\x00").decode(), "[" * 100_000,
     json.dumps(grid() | {"data": None}), json.dumps(grid() | {"eventTime": "soon"}),
     *(json.dumps(grid(**{name: None})) for name in ("api", "eTag", "contentLength", "url")),
     json.dumps(grid(url="ftp://x/y")), json.dumps(grid(url="https://imaging.blob.core.windows.net/")),
     json.dumps(grid(contentLength=-1)), json.dumps(grid(contentLength="5")), json.dumps(grid(eTag=""))],
)  # fmt: skip
def test_what_is_no_event_is_told_without_quoting_it(text: str) -> None:
    with pytest.raises(MessageUnreadable) as raised:
        read_message(text)
    assert "x.dcm" not in str(raised.value)


@given(st.text() | st.binary().map(lambda b: base64.b64encode(b).decode()) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["data", "url", "eTag", "type", "eventType", "api"]) | st.text(), inner,
        )).map(json.dumps))  # fmt: skip
def test_any_message_is_read_or_unreadable(text: str) -> None:
    try:
        read_message(text)
    except MessageUnreadable:
        return


def test_of_events_about_one_blob_the_newest_by_sequencer_counts_whatever_the_order() -> None:
    texts = [grid(eTag=f"0x{n}", sequencer=f"{n:026x}") for n in (9, 10, 11, 2)]
    events = [event for text in texts for event in read_message(json.dumps(text))]
    assert [event.etag for event in newest(events)] == ["0x11"]
    other = read_message(json.dumps(grid(url=URL + "2", sequencer="0")))
    assert len(newest([*events, *other])) == 2


def test_a_listing_keeps_folders_together() -> None:
    names = ["b/2", "a/1", "b/1", "a/2"]
    events = [e for name in names for e in read_message(json.dumps(grid(url=URL.replace("a%20b/x.dcm", name))))]
    rows = listing(events)
    assert rows.schema == LISTING
    assert [uri.rsplit("incoming/", 1)[1] for uri in rows.column("uri").to_pylist()] == ["a/1", "a/2", "b/1", "b/2"]
