"""What flat_metadata says of an object leads to its frames and bulk values, in the place where it lies."""

from __future__ import annotations

import json
import struct

import pytest
from pydicom.encaps import encapsulate

from dicom_assets.dicom.frames import read_frame
from dicom_assets.dicom.references import retrieve
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.retrieval import Place, open_data
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.raw import EXPLICIT, UNDEFINED, element
from dicom_assets_tests.landing.test_retrieval import zipped as packed
from dicom_assets_tests.support.steps import step_through

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

JPEG = "1.2.840.10008.1.2.4.50"
STREAMS = [b"\xff\xd8" + bytes([n]) * 60 + b"\xff\xd9" for n in range(3)]
DOCUMENT = b"%PDF" * 30

_PLACES = """
-- rows of flat_metadata with what opens their objects: of a member, its archive's version and size
SELECT flat.*, file.etag, file.size AS file_size
FROM flat_metadata AS flat
JOIN raw_files AS file ON file.batch_id = flat.batch_id AND file.uri = flat.uri AND file.member IS NULL
ORDER BY flat.SOPInstanceUID
"""


def image(number: int, syntax: str) -> bytes:
    """An object of three frames with a document in it."""
    numbers = {0x00280002: 1, 0x00280010: 8, 0x00280011: 8, 0x00280100: 8}
    elements = [element(tag, "US", struct.pack("<H", one)) for tag, one in numbers.items()]
    elements += [element(0x00280008, "IS", "3"), element(0x00420011, "OB", DOCUMENT)]
    elements.append(element(0x00080018, "UI", f"1.2.3.{number}\0"))
    if syntax == JPEG:
        pixels = encapsulate(STREAMS, has_bot=number % 2 == 0) + b"\xfe\xff\xdd\xe0\0\0\0\0"
        elements.append(element(0x7FE00010, "OB", pixels, length=UNDEFINED))
    else:
        elements.append(element(0x7FE00010, "OB", b"".join(STREAMS)))
    return raw.meta(syntax, f"1.2.3.{number}\0") + raw.data_set(*elements)


def test_a_row_leads_to_every_frame_and_value_of_its_object(graph, landing):
    landing.put("native.dcm", image(1, EXPLICIT))
    landing.put("with-table.dcm", image(2, JPEG))
    landing.put("without-table.dcm", image(3, JPEG))
    landing.put("stored.zip", packed({"x/a.dcm": image(4, JPEG), "x/b.dcm": image(5, EXPLICIT)}, 0))
    landing.put("deflated.zip", packed({"x/a.dcm": image(6, JPEG), "x/b.dcm": image(7, EXPLICIT)}, 8))
    step_through(graph, judges=False)
    rows = graph.rows(_PLACES)
    assert [row["header_form"] for row in rows] == ["whole"] * 7
    assert [row["frame_offsets"] is None for row in rows] == [True, False, False, False, True, False, True]
    assert [len(rows[place]["frame_offsets"]) for place in (1, 2, 3, 5)] == [3, 0, 3, 3]
    settings = graph.settings
    store = open_store(settings.sources[0])
    for row in rows:
        place = Place(row["uri"], row["etag"], row["file_size"], row["member"])
        syntax, most = row["TransferSyntaxUID"], settings.reading.max_inflated_bytes
        with open_data(store, place, syntax, settings.archives, most) as source:
            assert [read_frame(source, row, number) for number in (1, 2, 3)] == STREAMS
            assert retrieve(source, json.loads(row["header"])["00420011"]["BulkDataURI"]) == DOCUMENT
