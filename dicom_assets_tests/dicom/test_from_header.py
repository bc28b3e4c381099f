"""Values of promoted columns are what the object says at the path, whatever else it says."""

from __future__ import annotations

from datetime import date
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_assets.dicom.from_header import misfits, values_of
from dicom_assets.dicom.header import read_header
from dicom_assets.schema.promoted import promoted
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.dicoms import dicom

CREATOR = "SIEMENS MR HEADER"
B_VALUE = promoted(f"(0019,{CREATOR},0C)", name="b_value")
STEPS = promoted("RequestAttributesSequence.ScheduledProcedureStepID")
TYPES = promoted("ImageType", name="types")
COUNT = promoted("NumberOfTemporalPositions")
DAY = promoted("AcquisitionDate", name="day")
COLUMNS = [B_VALUE, STEPS, TYPES, COUNT, DAY]

texts = st.text("ABC 12", min_size=1, max_size=6).map(str.strip).filter(bool)


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, list[Any]]:
    """An object, and what its columns are to hold."""
    more: dict[str, Any] = {}
    steps = draw(st.none() | st.lists(st.none() | texts, max_size=3))
    if steps is not None:
        items = [Dataset() for _ in steps]
        for item, step in zip(items, steps, strict=True):
            if step is not None:
                item.ScheduledProcedureStepID = step
        more["RequestAttributesSequence"] = items
    types = draw(st.none() | st.lists(texts, min_size=1, max_size=3))
    count = draw(st.none() | st.integers(-999, 999))
    day = draw(st.none() | st.dates(date(1900, 1, 1), date(2100, 1, 1)))
    values = {"ImageType": types, "NumberOfTemporalPositions": count, "AcquisitionDate": day and f"{day:%Y%m%d}"}
    data = dicom(**{k: v for k, v in (more | values).items() if v is not None})
    said = [step for step in steps or () if step is not None] or None
    return data, [None, said, types, count, day]


def header_of(data: bytes) -> str:
    return read_header(BytesSource(data), ReadingLimits()).json.decode()


@given(st.lists(objects(), min_size=1, max_size=4))
def test_columns_hold_what_objects_say(found):
    headers = pa.array([header_of(data) for data, _ in found])
    read = [column.to_pylist() for column in values_of(headers, COLUMNS)]
    assert [list(row) for row in zip(*read, strict=True)] == [expected for _, expected in found]


@given(st.integers(0x10, 0xFF), st.integers(0x10, 0xFF), st.integers(0, 10**6))
def test_a_private_element_is_found_in_whatever_block_its_creator_has(block, other, value):
    header = {
        f"001900{block:02X}": {"vr": "LO", "Value": [CREATOR]},
        f"0019{block:02X}0C": {"vr": "IS", "Value": [value]},
    }
    if other != block:
        header |= {
            f"001900{other:02X}": {"vr": "LO", "Value": ["SOMEBODY"]},
            f"0019{other:02X}0C": {"vr": "LO", "Value": ["not this one"]},
        }
    text = orjson.dumps(dict(sorted(header.items()))).decode()
    assert values_of(pa.array([text, None]), [B_VALUE])[0].to_pylist() == [value, None]


def test_a_private_element_in_a_sequence_is_looked_for_in_the_block_of_its_item():
    column = promoted(f"RequestAttributesSequence.(0019,{CREATOR},0C)", name="x")
    item = {"00190011": {"vr": "LO", "Value": [CREATOR]}, "0019110C": {"vr": "IS", "Value": [7]}}
    header = {"00190010": {"vr": "LO", "Value": [CREATOR]}, "00400275": {"vr": "SQ", "Value": [item, {}, item]}}
    assert values_of(pa.array([orjson.dumps(header).decode()]), [column])[0].to_pylist() == [[7, 7]]


@pytest.mark.parametrize(
    ("column", "element"),
    [
        (COUNT, {"vr": "IS", "Value": ["many"]}),
        (COUNT, {"vr": "IS", "Value": [1, 2]}),
        (DAY, {"vr": "DA", "Value": ["20241399"]}),
        (promoted("AcquisitionDuration"), {"vr": "FD", "Value": ["NaN"]}),
    ],
)
def test_a_value_that_does_not_fit_is_null_and_counted(column, element):
    tag = column.steps[-1].key
    headers = pa.array([orjson.dumps({tag: element}).decode(), orjson.dumps({tag: {"vr": "IS"}}).decode(), None])
    assert values_of(headers, [column])[0].to_pylist() == [None] * 3
    assert misfits(headers, column) == 1
