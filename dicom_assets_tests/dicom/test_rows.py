"""Headers as Arrow rows of flat_metadata."""

from datetime import date

import pyarrow as pa

from dicom_assets.dicom.header import Header
from dicom_assets.dicom.rows import SCHEMA, dicom_columns, header_texts, issue_lists
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets_tests.dicom.referee import read
from dicom_assets_tests.dicom.samples import generated, test_file


def test_types_are_the_registrys():
    for field in SCHEMA:
        assert field.type == FLAT_METADATA.column(field.name).type


def test_every_column_that_comes_from_the_object_is_there():
    own = {c.name for c in FLAT_METADATA.columns if c.name[0].islower() and "_" in c.name}
    dicom = {c.name for c in FLAT_METADATA.columns} - own
    assert dicom - {"source", "operation", "sequence", "uri", "member", "size", "header", "issues"} <= set(SCHEMA.names)


def test_rows_keep_their_order_and_rows_without_a_header_are_null():
    header = read(test_file("CT_small.dcm"))
    batch = dicom_columns([None, header])
    assert batch.num_rows == 2
    assert batch["PatientID"].to_pylist() == [None, "1CT1"]
    assert batch["StudyDate"].to_pylist() == [None, date(2004, 1, 19)]
    assert batch["ImageType"].to_pylist() == [None, ["ORIGINAL", "PRIMARY", "AXIAL"]]
    assert batch["StudyTime"].to_pylist() == [None, "07:27:30"]
    assert header_texts([None, header]).to_pylist()[0] is None
    assert issue_lists([None, header]).to_pylist() == [[], []]


def test_every_kind_fits_its_columns():
    headers = [read(data) for _, data in generated(1)]
    batch = dicom_columns(headers)
    batch.validate(full=True)
    assert batch["Modality"].null_count == 0


def test_no_rows_have_the_same_schema():
    assert dicom_columns([]).schema == pa.schema(SCHEMA)
    assert dicom_columns([Header(b"{}", {}, ())]).num_rows == 1
