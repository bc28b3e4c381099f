"""A path names an attribute, and its column follows from it; one that names none is told what to do."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dicom_assets.schema.promoted import NotPromotable, PromotedColumn, promoted

MR = "(0019,SIEMENS MR HEADER,0C)"


@pytest.mark.parametrize(
    ("path", "name", "vr", "kind"),
    [
        ("AcquisitionDuration", "AcquisitionDuration", "FD", pa.float64()),
        ("00189073", "AcquisitionDuration", "FD", pa.float64()),
        ("(0018,9073)", "AcquisitionDuration", "FD", pa.float64()),
        ("PatientOrientation", "PatientOrientation", "CS", pa.list_(pa.string())),
        ("AcquisitionDate", "AcquisitionDate", "DA", pa.date32()),
        (
            "RequestAttributesSequence.ScheduledProcedureStepID",
            "RequestAttributesSequence_ScheduledProcedureStepID",
            "SH",
            pa.list_(pa.string()),
        ),
        ("00400275.00400009", "RequestAttributesSequence_ScheduledProcedureStepID", "SH", pa.list_(pa.string())),
    ],
)
def test_name_and_type_follow_from_the_path(path, name, vr, kind):
    column = promoted(path)
    assert (column.name, column.vr, column.type) == (name, vr, kind)
    assert PromotedColumn.from_dict(column.to_dict()) == column


def test_a_private_element_is_named_by_its_creator_and_needs_a_name():
    assert promoted(MR, name="b_value").type == pa.int64()
    assert promoted("(0019,Nobody,0C)", name="x", vr="LO").type == pa.list_(pa.string())
    nested = promoted(f"RequestAttributesSequence.{MR}", name="x")
    assert [step.key for step in nested.steps] == ["00400275", "0019xx0C"]


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("Nope", {}, "no attribute"),
        ("", {}, "is no path"),
        ("PatientID.", {}, "is no path"),
        ("PixelData", {}, "which no column can hold"),
        ("RequestAttributesSequence", {}, "name an attribute in it"),
        ("PatientID.StudyID", {}, "is no sequence"),
        ("(0019,100C)", {}, "name its creator"),
        ("(0018,SIEMENS MR HEADER,0C)", {"name": "x"}, "odd groups"),
        (MR, {}, "Give the column a name"),
        ("(0019,Nobody,0C)", {"name": "x"}, "No dictionary knows the VR"),
        ("PatientOrientation", {"vr": "LO"}, "has VR CS"),
        ("PatientOrientation", {"level": "ward"}, "no level"),
        ("PatientOrientation", {"name": "1; DROP"}, "cannot name a column"),
        ("PatientOrientation", {"name": "filename"}, "cannot name a column"),
        ("00100000", {}, "no attribute of a data set"),
    ],
)
def test_what_names_no_column_is_told(path, more, says):
    with pytest.raises(NotPromotable, match=says):
        promoted(path, **more)
