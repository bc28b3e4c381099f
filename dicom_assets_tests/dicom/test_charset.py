"""Character sets by PS3.5 6.1.2.5 and its annexes H to K; the names in the examples are the annexes' own."""

import re
import unicodedata

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_assets.dicom.charset import codecs_of, decode, spelled
from dicom_assets.dicom.flaws import CHARSET_GUESSED, CHARSET_LOST, CHARSET_PARTLY, SOUND, VALUE_INVALID
from dicom_assets.dicom.iso2022 import DESIGNATIONS, NAME_RESETS
from dicom_assets.dicom.values import json_element
from dicom_assets_tests.dicom.raw import dicom, element
from dicom_assets_tests.dicom.referee import differences, read

JAPANESE, JAPANESE_KANA = b"\\ISO 2022 IR 87", b"ISO 2022 IR 13\\ISO 2022 IR 87"
KOREAN, CHINESE = b"\\ISO 2022 IR 149", b"\\ISO 2022 IR 58"


def value(vr, raw, charset):
    found, flaws = json_element(vr, raw, True, codecs_of(charset))
    orjson.dumps(found)
    return found.get("Value"), flaws


def name(raw, charset):
    (found,), flaws = value("PN", raw, charset)
    return "=".join(found.values()), flaws


@pytest.mark.parametrize(
    ("annex", "charset", "raw", "text"),
    [
        (
            "H.3.1",
            JAPANESE,
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "H.3.2",
            JAPANESE_KANA,
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        (
            "I.2",
            KOREAN,
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        ("J.1", b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
        ("J.3", b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        ("J.4", b"GBK", "Wang^XiaoDong=王^小东".encode("gbk"), "Wang^XiaoDong=王^小东"),
        (
            "K.2",
            CHINESE,
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东",
        ),
    ],
)
def test_the_names_of_the_annexes(annex, charset, raw, text):
    assert name(raw, charset) == (text, SOUND)


def test_the_text_of_annex_k_in_lines():
    lines = [b"1. \x1b$)A\xb5\xda\xd2\xbb\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3", b"2. \x1b$)A\xb5\xda\xb6\xfe\xd0\xd0"]
    assert value("LT", b"\r\n".join(lines), CHINESE) == (["1. 第一行文字。\r\n2. 第二行"], SOUND)


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (CHINESE, b"\x1b$)A\xd0\xd8\xb2\xbf", "胸部"),
        (CHINESE, b"CT \x1b$)A\xd0\xd8\xb2\xbf\x1b(B CT", "CT 胸部 CT"),
        (b"\\ISO 2022 IR 159", b'\x1b$(D0!0"\x1b(B', "丂丄"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"M\xfcller \x1b-L\xbb\xee\xda", "Müller Люк"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 126", b"\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
        (b"ISO_IR 203", b"\xa4 \xbd", "€ œ"),
        (b"\\ISO 2022 IR 203", b"\x1b-b\xa4", "€"),
        (b"ISO_IR 166", b"\xa1\xd2", "กา"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\x1b)I\xd4\xcf", "ﾔﾏ"),
    ],
)
def test_texts_in_declared_sets_are_sound_and_hold_no_escape(charset, raw, text):
    assert value("LO", raw, charset) == ([text], SOUND)
    assert value("ST", raw, charset) == ([text], SOUND)


@pytest.mark.parametrize("end", [b"\r\n", b"\x0c", b"\t"])
def test_the_first_set_counts_again_behind_line_and_page_ends(end):
    charset = b"ISO 2022 IR 100\\ISO 2022 IR 144"
    assert value("LT", b"\x1b-L\xbb" + end + b"\xe9", charset) == (["Л" + end.decode() + "é"], SOUND)


def test_the_first_set_counts_again_in_the_next_value_and_not_behind_a_backslash_that_parts_nothing():
    charset = b"ISO 2022 IR 100\\ISO 2022 IR 144"
    assert value("LO", b"\x1b-L\xbb\\\xe9", charset) == (["Л", "é"], SOUND)
    assert value("ST", b"\x1b-L\xbb\\\xe9", charset) == (["Л\\щ"], SOUND)


@pytest.mark.parametrize("delimiter", [b"^", b"="])
def test_the_first_set_counts_again_behind_the_delimiters_of_a_name(delimiter):
    charset = b"ISO 2022 IR 100\\ISO 2022 IR 144"
    assert name(b"\x1b-L\xbb" + delimiter + b"\xe9", charset) == ("Л" + delimiter.decode() + "é", SOUND)
    assert value("LO", b"\x1b-L\xbb" + delimiter + b"\xe9", charset) == (["Л" + delimiter.decode() + "щ"], SOUND)


def test_bytes_of_a_kanji_that_look_like_delimiters_are_none():
    for pair in (b"%^", b"%=", b"%\\", b"^^", b"\\\\"):
        kanji = (bytes(b | 0x80 for b in pair)).decode("euc_jp")
        assert name(b"\x1b$B" + pair + b"\x1b(B^A", JAPANESE) == (kanji + "^A", SOUND)


def test_a_set_used_again_without_its_escape_sequence_is_read_and_flagged():
    assert name(b"=\x1b$)C\xc8\xab^\xb1\xe6\xb5\xbf", KOREAN) == ("=홍^길동", CHARSET_GUESSED)
    assert value("LO", "胸部".encode("gb2312"), CHINESE) == (["胸部"], CHARSET_GUESSED)
    assert name(b"\x1b$B;3ED^\x1b$BB@O:", JAPANESE) == ("山田^太郎", CHARSET_GUESSED)


def test_sets_that_nobody_declared_are_read_by_their_escape_sequence_and_flagged():
    for raw, text in ((b"\x1b$B;3\x1b(B", "山"), (b"\x1b$)A\xd0\xd8", "胸"), (b"\x1b-L\xbb", "Л")):
        assert value("LO", raw, b"ISO_IR 100") == ([text], CHARSET_GUESSED)


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"ISO_IR 100", "山".encode(), "å±±"),  # all three bytes are letters of Latin-1
        (b"ISO_IR 100", "田".encode(), "ç\\x94°"),
        (b"ISO_IR 144", b"\x9d\xbb", "\\x9dЛ"),
        (b"ISO_IR 127", b"\xff", "\\xff"),
        (b"ISO_IR 192", b"M\xfcller", "M\\xfcller"),
        (b"GB18030", b"\xff", "\\xff"),
        (b"ISO_IR 166", b"\xfc\xfd", "\\xfc\\xfd"),
        (CHINESE, b"\x1b$)A\xfe\xfe", "\\xfe\\xfe"),
        (JAPANESE, b"\x1b$B))\x1b(B", "\\x29\\x29"),
        (KOREAN, b"\x1bX", "\\x1bX"),
    ],
)
def test_bytes_that_the_declared_set_does_not_have_are_spelled_and_flagged(charset, raw, text):
    flaw = SOUND if "\\x" not in text else CHARSET_LOST
    assert value("LO", raw, charset) == ([text], flaw)


def test_kanji_where_only_katakana_are_declared_are_read_and_flagged():
    assert value("LO", "山田".encode("shift_jis"), b"ISO_IR 13") == (["山田"], CHARSET_GUESSED)


def test_control_characters_reach_no_text():
    for raw in (b"a\x07b", b"a\x9b31mb", b"a\x7fb", b"\x1b]0;owned\x07"):
        for charset in (b"", b"ISO_IR 100", b"ISO_IR 192", KOREAN):
            for vr in ("LO", "PN", "UT"):
                found, flaws = json_element(vr, raw, True, codecs_of(charset))
                assert flaws & (CHARSET_LOST | CHARSET_GUESSED)
                written = orjson.dumps(found).decode()
                assert not any(unicodedata.category(c) == "Cc" for c in written)
                assert "\\u00" not in written
        if raw.isascii():
            assert value("CS", raw, b"")[1] == VALUE_INVALID


def test_a_sound_part_of_a_name_is_not_lost_with_an_unsound_one():
    whole = element(0x00080005, "CS", "ISO_IR 192")
    header = read(dicom(whole, element(0x00100010, "PN", b"Yamada^Tarou=\xff\xff")))
    assert header.issues == ("CHARSET_UNDECODABLE",)
    assert header.columns["PatientName"] == "Yamada^Tarou"
    assert header.columns["patient_given_name"] == "Tarou"
    header = read(dicom(whole, element(0x00100010, "PN", b"M\xfcller^Anna")))
    assert "PatientName" not in header.columns
    assert "patient_family_name" not in header.columns
    assert header.columns["patient_given_name"] == "Anna"
    assert value("PN", b"A=\xff", b"ISO_IR 192") == ([{"Alphabetic": "A", "Ideographic": "\\xff"}], CHARSET_PARTLY)


@pytest.mark.parametrize(
    ("codec", "charset", "escape"),
    [("iso2022_jp", JAPANESE, b"\x1b$B"), ("iso2022_jp_2", b"\\ISO 2022 IR 159", b"\x1b$(D")],
)
def test_every_pair_of_a_japanese_set_is_what_pythons_codec_says(codec, charset, escape):
    agreed = 0
    for pair in (bytes((a, b)) for a in range(0x21, 0x7F) for b in range(0x21, 0x7F)):
        try:
            wanted = (escape + pair + b"\x1b(B").decode(codec)
        except UnicodeError:
            wanted = None
        (found,), flaw = value("UT", escape + pair + b"\x1b(B", charset)
        assert (found, flaw) == (wanted, SOUND) if wanted else flaw == CHARSET_LOST
        agreed += wanted is not None
    assert agreed > 6_000


@pytest.mark.parametrize(("codec", "charset", "escape"), [("euc_kr", KOREAN, b"C"), ("gb2312", CHINESE, b"A")])
def test_every_pair_of_a_korean_or_chinese_set_is_what_pythons_codec_says(codec, charset, escape):
    agreed = 0
    for pair in (bytes((a, b)) for a in range(0xA1, 0xFF) for b in range(0xA1, 0xFF)):
        try:
            wanted = pair.decode(codec)
        except UnicodeError:
            wanted = None
        (found,), flaw = value("UT", b"\x1b$)" + escape + pair, charset)
        assert (found, flaw) == (wanted, SOUND) if wanted else flaw == CHARSET_LOST
        agreed += wanted is not None
    assert agreed > 7_000


def test_where_pydicom_falls_short_the_header_is_right_and_flagged_nowhere():
    data = dicom(element(0x00080005, "CS", CHINESE), element(0x00081030, "LO", b"\x1b$)A\xd0\xd8\xb2\xbf"))
    header = read(data)
    assert header.columns["StudyDescription"] == "胸部"
    assert (header.issues, header.tier) == ((), 1)
    assert not differences(data, header)


CHARSETS = st.lists(
    st.sampled_from([b"", b"ISO_IR 192", b"GB18030", b"ISO_IR 13", b"ISO_IR 100", b"ISO_IR 203"])
    | st.sampled_from([13, 58, 87, 100, 126, 144, 149, 159, 166, 203]).map(lambda n: b"ISO 2022 IR %d" % n),
    max_size=3,
).map(b"\\".join)
PIECES = st.lists(
    st.sampled_from([*DESIGNATIONS, b"^", b"=", b"\\", b"\r\n", b"\0", b"\x1b", b"\x1b$", b"\x9b"])
    | st.binary(max_size=6),
    max_size=12,
).map(b"".join)
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@given(PIECES, CHARSETS, st.sampled_from(["LO", "PN", "LT", "UC", "CS", "UI", "AE", "UR", "DS", "IS", "DA"]))
@example(b"\x1b$)C\xc8\xab^\xb1\xe6", b"\\ISO 2022 IR 149", "PN")
def test_no_bytes_in_any_set_leave_a_control_character_a_nul_or_a_surrogate(raw, charset, vr):
    found, _ = json_element(vr, raw, True, codecs_of(charset))
    orjson.dumps(found)
    texts = [v for one in found.get("Value", ()) for v in (one.values() if isinstance(one, dict) else [one])]
    assert not any(FORBIDDEN.search(text) for text in texts if isinstance(text, str))


@given(st.binary(max_size=30).filter(lambda raw: b"\x1b" not in raw), CHARSETS)
def test_sound_text_without_escapes_is_what_the_first_codec_says(raw, charset):
    codecs = codecs_of(charset)
    text, flaw = decode(raw, codecs, NAME_RESETS)
    if flaw == SOUND:
        assert text == raw.decode(codecs[0])
    if not flaw & CHARSET_LOST:
        assert spelled(text) == text
