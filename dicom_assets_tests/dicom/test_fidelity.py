"""Headers equal pydicom's DICOM JSON, whoever read them and whatever was read before."""

from collections import Counter
from pathlib import Path

import pytest

from dicom_assets.dicom.header import Header, Memo
from dicom_assets_tests.dicom import referee
from dicom_assets_tests.dicom.raw import BIG, dicom, element, item, sequence
from dicom_assets_tests.dicom.referee import (
    DIFFERS,
    ON_PURPOSE,
    by_second_tier,
    differences,
    outcome,
    pydicom_says,
    read,
)
from dicom_assets_tests.dicom.samples import generated, pydicom_files, shared, test_file


@pytest.fixture(scope="module")
def headers():
    """(name, bytes, header) of every file of pydicom's that has one, read one after the other with one memory."""
    memo = Memo()
    found = []
    for path in pydicom_files():
        data = path.read_bytes()
        header = outcome(data, memo)
        if isinstance(header, Header) and not header.media_directory:
            found.append((path.name, data, header))
    return found


def test_on_every_file_of_pydicom_the_header_is_pydicoms(headers):
    assert len(headers) >= 160
    wrong = {name: tags for name, data, header in headers if (tags := differences(data, header))}
    assert not wrong


def test_the_documents_list_every_difference_from_pydicom():
    document = (Path(__file__).parents[2] / "docs" / "reader.md").read_text(encoding="utf-8")
    rows = {line for line in document.splitlines() if line.startswith("| ") and "PS3." in line}
    assert rows == {f"| {kind.name} | {kind.section} |" for kind in ON_PURPOSE}


SPECIAL = {
    "no byte": (b"\\ISO 2022 IR 58", 0x00081030, "LO", b"\x1b$)A\xd0\xd8\xb2\xbf"),
    "counts again": (b"ISO 2022 IR 100\\ISO 2022 IR 144 ", 0x00100010, "PN", b"\x1b-L\xbb^\xe9"),
    "203": (b"ISO_IR 203", 0x00081030, "LO", b"\xa4"),
    "little endian": (b"ISO_IR 100", 0x00280010, "UN", b"\x04\0"),
    "any length": (b"ISO_IR 100", 0x00204000, "UN", b"x" * 70_000),
}


@pytest.mark.parametrize("kind", ON_PURPOSE, ids=lambda kind: kind.name)
def test_each_difference_is_one_is_flagged_nowhere_and_is_explained_by_its_entry_alone(kind, monkeypatch):
    (case,) = [case for words, case in SPECIAL.items() if words in kind.name]
    charset, tag, vr, value = case
    big = {"little": False}
    data = dicom(element(0x00080005, "CS", charset, **big), element(tag, vr, value, **big), syntax=BIG)
    header = read(data)
    assert header.issues == ()
    assert not differences(data, header)
    monkeypatch.setattr(referee, "ON_PURPOSE", [])
    assert differences(data, header) == [f"{tag:08X}"]


def test_at_most_a_tenth_of_pydicoms_odd_files_is_left_to_the_second_tier(headers):
    left = Counter(header.fallback for _, _, header in headers if header.tier == 2)
    assert left.total() <= len(headers) // 10
    assert set(left) <= {"VR", "truncated", "undefined length", "delimiter", "order of elements"}


def test_both_tiers_say_the_same_to_the_byte(headers, monkeypatch):
    wrong = []
    for name, data, header in headers:
        if header.tier == 1:
            other = by_second_tier(data, monkeypatch)
            if (header.json, header.columns, header.issues) != (other.json, other.columns, other.issues):
                wrong.append(name)
    assert not wrong


def test_both_tiers_say_the_same_of_a_contour(monkeypatch):
    points = "\\".join(f"{n}\\-{n}.50\\+{n}.0" if n % 7 else f"{n}\\{n}.25\\-0" for n in range(60))
    for many in (points, points.replace("+", "")):
        contour = sequence(0x30060040, item(element(0x30060050, "DS", many)))
        data = dicom(contour)
        header = read(data)
        assert (header.tier, header.issues) == (1, ())
        assert header.json == by_second_tier(data, monkeypatch).json
        assert not differences(data, header)


def test_no_generated_file_is_left_to_the_second_tier_and_each_says_what_pydicom_says(monkeypatch):
    memo = Memo()
    for kind, data in generated():
        header = read(data, memo)
        assert (header.tier, header.issues) == (1, ()), kind
        if kind not in ("rtstruct", "xa 50 MB"):  # pydicom needs too long for each of them here
            assert not differences(data, header), kind


@pytest.mark.slow
def test_memory_changes_nothing():
    files = [data for _, data in generated(6)] * 2
    memo = Memo()
    for data in files:
        assert read(data, memo) == read(data)


def test_the_shared_corpus_where_it_is_there():
    folder = shared()
    if folder is None or not (folder / "corpus").is_dir():
        pytest.skip("no shared corpus")
    memo, wrong, left, total = Memo(), {}, 0, 0
    for path in sorted((folder / "corpus" / "fo-dicom").rglob("*")):
        if not path.is_file() or path.stat().st_size > 4_000_000:
            continue
        data = path.read_bytes()
        header = outcome(data, memo)
        if not isinstance(header, Header) or header.media_directory:
            continue
        total, left = total + 1, left + (header.tier == 2)
        if (tags := differences(data, header)) and not DIFFERS & set(header.issues):
            wrong[str(path.relative_to(folder))] = tags
    assert not wrong
    assert left <= total // 5


@pytest.mark.parametrize(
    ("name", "oddity"),
    [
        ("badVR.dcm", "has numbers that are none"),
        ("nested_priv_SQ.dcm", "nests private sequences"),
        ("UN_sequence.dcm", "writes a known sequence as UN"),
        ("ExplVR_BigEnd.dcm", "is in big endian"),
        ("image_dfl.dcm", "is deflated"),
        ("empty_charset_LEI.dcm", "declares no character set at all"),
        ("priv_SQ.dcm", "has private sequences without length"),
        ("SC_rgb_jpeg.dcm", "switches to implicit VR"),
    ],
)
def test_named_oddities_of_pydicoms_files(name, oddity):
    data = test_file(name)
    header = outcome(data)
    if isinstance(header, Header):
        assert pydicom_says(data) is None or not differences(data, header)
    else:
        assert header in ("MISSING_IDENTITY", "TRUNCATED_HEADER"), oddity
