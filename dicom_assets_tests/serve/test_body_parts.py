"""Parts of a body come out as they went in, whatever the pieces; and what is no body of that kind is refused."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.serve.body_parts import HEADER_MOST, BodyMalformed, BodyParts, PartBegin, PartBytes, PartEnd

BOUNDARY = "bound"


def read(body: bytes, cuts: list[int] | None = None, boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    """Headers and bytes of each part, the body fed in pieces that end at the cuts."""
    parts, found = BodyParts(boundary), []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    for begin, end in pairwise(edges):
        for event in parts.feed(body[begin:end]):
            if isinstance(event, PartBegin):
                headers, data = dict(event.headers), b""
            elif isinstance(event, PartBytes):
                data += event.data
            elif isinstance(event, PartEnd):
                found.append((headers, data))
    parts.finish()
    return found


def written(parts: list[bytes], header: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    body = b"".join(b"--bound\r\n" + header + b"\r\n" + part + b"\r\n" for part in parts)
    return body + b"--bound--\r\n"


NASTY = st.lists(
    st.sampled_from(
        [b"\r\n", b"--", b"--bound", b"\r\n--bound", b"bound", b"\r", b"\n", b" ", b"-", b"\r\n--bounds", b"x"]
    )
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)
"""Bytes that look like boundaries."""


def looks_like_the_end(part: bytes) -> bool:
    """Whether a reader must take something in a part for a boundary."""
    rest = b"\r\n" + part + b"\r\n--bound"
    at = rest.find(b"\r\n--bound")
    while at + 9 < len(rest):
        behind = rest[at + 9 :]
        if behind.startswith(b"--") or behind.lstrip(b" \t").startswith(b"\r\n"):
            return True
        at = rest.find(b"\r\n--bound", at + 1)
    return False


@given(st.lists(NASTY, max_size=4), st.lists(st.integers(0, 10_000), max_size=8))
def test_parts_are_the_bytes_that_were_sent_however_the_body_is_cut(parts, cuts):
    parts = [part for part in parts if not looks_like_the_end(part)]
    if parts:
        assert [data for _, data in read(written(parts), cuts)] == parts


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_are_read_or_refused_and_alike_however_they_are_cut(body, cuts):
    body = body.replace(b"\x00", b"\r\n--bound").replace(b"\x01", b"\r\n\r\n").replace(b"\x02", b"--")

    def outcome(how):
        try:
            return read(body, how)
        except BodyMalformed:
            return "refused"

    assert outcome(cuts) == outcome(None) == outcome(list(range(len(body))))


def test_a_long_part_is_handed_on_in_pieces_and_never_held():
    data = random.Random(1).randbytes(3_000_000)
    parts, longest, come = BodyParts(BOUNDARY), 0, b""
    body = written([data])
    for begin in range(0, len(body), 50_000):
        for event in parts.feed(body[begin : begin + 50_000]):
            if isinstance(event, PartBytes):
                longest, come = max(longest, len(event.data)), come + event.data
    assert come == data and longest < 120_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"preamble\r\n--bound\r\n\r\nx\r\n--bound--", [({}, b"x")]),
        (b"--bound  \t\r\nA: 1\r\n\r\nx\r\n--bound-- \r\nepilogue --bound", [({"a": "1"}, b"x")]),
        (b"\r\n--bound\r\nA: 1\r\n b\r\n\r\n\r\n--bound--", [({"a": "1 b"}, b"")]),
        (b"--bound\r\nA: 1\r\n\r\n--bound--", [({"a": "1"}, b"")]),
        (b"--bound--", []),
    ],
    ids=["preamble and no headers", "padding and epilogue", "folded header", "nothing in a part", "no part"],
)
def test_what_rfc_2046_allows_is_read(body, expected):
    assert read(body) == expected
    assert read(body, list(range(len(body)))) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--bound\r\nA: 1\r\n\r\nx",
        b"--bound\r\nA: 1\r\n\r\nx\r\n--bound",
        b"--bound\nA: 1\n\nx\n--bound--\n",
        b"--other\r\n\r\nx\r\n--other--",
        b"--bound\r\nno header\r\n\r\nx\r\n--bound--",
        b"--bound\r\nA: " + b"x" * HEADER_MOST + b"\r\n\r\nx\r\n--bound--",
    ],
    ids=["nothing", "no end", "half an end", "line feeds alone", "another boundary", "no header", "endless headers"],
)
def test_what_is_no_multipart_body_is_refused(body):
    with pytest.raises(BodyMalformed):
        read(body)


@pytest.mark.parametrize("boundary", ["", "a\r\nb", "ä", "x" * 300, "ends "])
def test_what_is_no_boundary_is_refused(boundary):
    with pytest.raises(BodyMalformed):
        BodyParts(boundary)
