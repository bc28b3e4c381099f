"""The two ways in which an object ends without a header. Their messages never hold what stands in the object."""

from __future__ import annotations


class NotDicom(Exception):
    """The object is not DICOM at all."""


class Unreadable(Exception):
    """The object begins like DICOM and has no usable header.

    code: reason code (`dicom_assets.schema.codes`). detail: what is wrong, without anything from the object.
    offset: byte at which it was found, counted in the object, or in the inflated data set where that is deflated.
    """

    def __init__(self, code: str, detail: str, offset: int | None = None) -> None:
        """Code, clean detail, place."""
        super().__init__(f"{code}: {detail}" + ("" if offset is None else f" (byte {offset})"))
        self.code = code
        self.detail = detail
        self.offset = offset
