"""Which representation a client gets for what it says that it accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from dicom_assets.serve.media import DICOM, DICOM_JSON, JSON, OCTETS, ZIP, Offer, choose, ranges
from dicom_assets.serve.problems import Refusal

LITTLE, LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
FRAMES = [
    Offer(OCTETS, (LS,), multipart=True),
    Offer("image/jls", (LS,), multipart=True),
    Offer(OCTETS, (LITTLE,), multipart=True),
]
METADATA = [Offer(DICOM_JSON), Offer(JSON)]
OBJECTS = [Offer(DICOM, (LS,), single=False, multipart=True), Offer(ZIP)]


def asked(accept: str | None, query: str = "") -> Request:
    headers = [(b"accept", accept.encode("latin-1"))] if accept is not None else []
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


def chosen(accept: str | None, offers: list[Offer], query: str = "") -> tuple[str, bool, str | None]:
    choice = choose(ranges(asked(accept, query)), offers)
    return choice.offer.kind, choice.is_multipart, choice.transfer_syntax


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize(
    ("kind", "syntax", "wanted"),
    [
        (OCTETS, "*", (OCTETS, True, LS)),
        (OCTETS, None, (OCTETS, True, LS)),
        (OCTETS, LITTLE, (OCTETS, True, LITTLE)),
        ("image/jls", None, ("image/jls", True, LS)),
        ("image/*", "*", ("image/jls", True, LS)),
    ],
)
def test_the_type_of_parts_is_understood_with_and_without_quotation_marks(quoted, kind, syntax, wanted):
    accept = f'multipart/related; type="{kind}"' if quoted else f"multipart/related;type={kind}"
    if syntax is not None:
        accept += f'; transfer-syntax="{syntax}"' if quoted else f";transfer-syntax={syntax}"
    assert chosen(accept, FRAMES) == wanted
    assert chosen(accept.upper().replace("TRANSFER-SYNTAX", "Transfer-Syntax"), FRAMES) == wanted


@pytest.mark.parametrize(
    "accept", [None, "*/*", "*/*;q=0.1", "text/html,*/*;q=0.8", "text/html;level=1;q=0.7, */*;q=0.5"]
)
def test_nothing_and_anything_mean_the_default(accept):
    assert chosen(accept, FRAMES) == (OCTETS, True, LS)
    assert chosen(accept, METADATA) == (DICOM_JSON, False, None)
    assert chosen(accept, OBJECTS) == (DICOM, True, LS)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (f"{JSON};q=0.5, {DICOM_JSON};q=0.4", JSON),
        (f"{JSON};q=0.4, {DICOM_JSON}", DICOM_JSON),
        (f"{JSON}, {DICOM_JSON}", JSON),
        (f"{DICOM_JSON};q=0, */*", JSON),
        ("application/*", DICOM_JSON),
        (f"{JSON};q=nonsense", JSON),
    ],
)
def test_what_is_liked_better_is_given(accept, wanted):
    assert chosen(accept, METADATA)[0] == wanted


def test_a_single_part_is_given_to_who_accepts_only_that():
    assert chosen(OCTETS, FRAMES) == (OCTETS, False, LS)
    assert chosen(f"{OCTETS}; transfer-syntax={LITTLE}", FRAMES) == (OCTETS, False, LITTLE)
    with pytest.raises(Refusal):
        chosen(DICOM, OBJECTS)


@pytest.mark.parametrize(
    "accept", ["", "image/gif", "nonsense", f"{OCTETS};q=0", "multipart/related; type=image/gif", ";;,,"]
)
def test_what_cannot_be_given_is_refused_with_what_can_be(accept):
    with pytest.raises(Refusal) as refused:
        chosen(accept, FRAMES)
    assert refused.value.status == 406 and "image/jls" in refused.value.sentence


def test_the_parameter_counts_before_the_header():
    assert chosen("image/gif", METADATA, "accept=application/json")[0] == JSON
    assert chosen(None, METADATA, "accept=application/dicom+json")[0] == DICOM_JSON
    assert chosen(None, METADATA, "accept=application/dicom%2Bjson")[0] == DICOM_JSON


@given(st.text(max_size=60))
def test_whatever_is_sent_is_an_answer_or_a_refusal(text):
    try:
        chosen(text.encode("utf-8", "replace").decode("latin-1"), FRAMES)
    except Refusal as refused:
        assert refused.status == 406 and (not text.strip() or len(text) < 8 or text not in refused.sentence)
