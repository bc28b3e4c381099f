"""Values: what pydicom says where nothing is lost, and what was written where pydicom would lose it."""

import json
import math
import struct

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dicom_assets.dicom.charset import DEFAULT, codecs_of, decode
from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, SOUND, VALUE_INVALID
from dicom_assets.dicom.values import DECODERS, json_element


def value(vr, raw, charset=b"", little=True):
    element, flaws = json_element(vr, raw, little, codecs_of(charset) if charset else DEFAULT)
    orjson.dumps(element)  # always valid JSON
    return element.get("Value"), flaws


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("CS", b"ORIGINAL\\PRIMARY ", ["ORIGINAL", "PRIMARY"]),
        ("UI", b"1.2.3\0", ["1.2.3"]),
        ("AE", b" SCU  ", ["SCU"]),
        ("LT", b"a\\b ", ["a\\b"]),
        ("UR", b"http://a/b  ", ["http://a/b"]),
        ("DS", b"1.50\\-2 ", [1.5, -2.0]),
        ("DS", b"1\\\\3", [1.0, None, 3.0]),
        ("IS", b"+12 ", [12]),
        ("IS", b"1.0 ", [1]),
        ("AT", b"\x08\x00\x60\x00", ["00080060"]),
        ("US", b"\x01\x00\x02\x00", [1, 2]),
        ("PN", b"A^B", [{"Alphabetic": "A^B"}]),
        ("PN", b"A^B==C ", [{"Alphabetic": "A^B", "Ideographic": "", "Phonetic": "C"}]),
        ("PN", b"A\\\\B", [{"Alphabetic": "A"}, None, {"Alphabetic": "B"}]),
    ],
)
def test_sound_values(vr, raw, expected):
    assert value(vr, raw) == (expected, SOUND)


@pytest.mark.parametrize("vr", sorted(DECODERS))
def test_empty_values_are_absent(vr):
    assert value(vr, b"") == (None, SOUND)


@pytest.mark.parametrize(
    ("vr", "raw", "kept"),
    [
        ("IS", b"2.5 ", ["2.5"]),
        ("IS", b"12\\abc", [12, "abc"]),
        ("IS", b"99999999999999999999", ["99999999999999999999"]),
        ("DS", b"NaN ", ["NaN "]),
        ("DS", b"1,5", ["1,5"]),
        ("DS", b"1_0", ["1_0"]),
        ("DS", b"1e999", ["1e999"]),
        ("FD", struct.pack("<dd", 1.0, math.nan), [1.0, "NaN"]),
        ("FL", struct.pack("<f", -math.inf), ["-Infinity"]),
        ("CS", b"T\xe9l\xe9", ["Télé"]),
    ],
)
def test_what_does_not_fit_its_vr_is_kept_as_written_and_flagged(vr, raw, kept):
    if vr == "DS":
        kept = [k.strip() if isinstance(k, str) else k for k in kept]
    assert value(vr, raw) == (kept, VALUE_INVALID)


def test_binary_numbers_of_a_wrong_length_are_kept_inline():
    element, flaws = json_element("US", b"\x01\x02\x03", True, DEFAULT)
    assert (element, flaws) == ({"vr": "UN", "InlineBinary": "AQID"}, VALUE_INVALID)


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 192", "山田".encode(), "山田"),
        (b"\\ISO 2022 IR 87 ", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"GB18030 ", "王".encode("gb18030"), "王"),
    ],
)
def test_declared_character_sets(charset, raw, text):
    assert value("LO", raw, charset) == ([text], SOUND)


def test_text_beyond_the_declared_character_set_is_kept_byte_by_byte():
    assert value("LO", b"M\xfcller", b"ISO_IR 192") == (["M\\xfcller"], CHARSET_LOST)


def test_the_backslash_of_a_kept_byte_separates_no_values():
    assert value("LO", b"A\xfc\\B", b"ISO_IR 192") == (["A\\xfc", "B"], CHARSET_LOST)
    assert value("PN", b"A\xfc\\B", b"ISO_IR 192")[0] == [{"Alphabetic": "A\\xfc"}, {"Alphabetic": "B"}]


def test_text_without_a_declaration_is_read_as_latin_1_and_flagged_as_a_guess():
    assert value("LO", b"M\xfcller") == (["Müller"], CHARSET_GUESSED)


def test_an_escape_sequence_that_nobody_declared_loses_nothing():
    text, flaw = decode(b"a\x1b$B;3\x1b(Bb", DEFAULT)
    assert (text, flaw) == ("a山b", CHARSET_GUESSED)  # the sequence says itself what it stands for


@given(st.binary(max_size=40), st.sampled_from(sorted(DECODERS)), st.binary(max_size=20), st.booleans())
def test_any_bytes_become_valid_json_in_any_vr_and_character_set(raw, vr, charset, little):
    element, _ = json_element(vr, raw, little, codecs_of(charset))
    assert json.loads(orjson.dumps(element)) == element


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5))
def test_decimal_strings_are_the_floats_that_python_reads(numbers):
    text = "\\".join(repr(n) for n in numbers)
    assert value("DS", text.encode()) == (numbers, SOUND)


def test_many_blanks_are_no_decimals():
    assert value("DS", b" " * 1_000) == value("DS", b" ") == (None, SOUND)


@given(st.lists(st.text("0123456789.-+ ", max_size=8), min_size=1, max_size=6).map("\\".join))
@example("1\\2.50\\-0.125")
@example("+1\\2")
@example("01\\2")
@example("1\\\\2")
@example("1 2\\3")
def test_many_decimals_are_the_numbers_that_few_are(text):
    few, flaws = value("DS", text.encode())
    padding = "\\0.5" * 100
    many, flaws_of_many = value("DS", (text + padding).encode())
    assume(text.strip())
    if flaws == SOUND:
        assert (many, flaws_of_many) == ([*few, *[0.5] * 100], SOUND)
    else:
        assert flaws_of_many == VALUE_INVALID


@given(st.integers(-(2**63), 2**63 - 1))
def test_integer_strings_keep_every_digit(number):
    assert value("IS", str(number).encode()) == ([number], SOUND)


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cc"], codec="utf-8"), max_size=30))
def test_utf8_text_survives(text):
    expected = text.rstrip("\0 ")
    assume(expected)
    assert value("LO", text.encode(), b"ISO_IR 192") == ([expected], SOUND)
