"""The VR of an element by pydicom's dictionaries, and what pydicom raises when an element is not what it seems."""

from __future__ import annotations

import struct
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.hooks import hooks

PYDICOM_ERRORS = (
    ArithmeticError,
    BytesLengthException,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises at bytes that it cannot read; it has no type of its own for that."""


def known_vr(raw: RawDataElement, ds: Dataset) -> str:
    """The VR of an element: written, or by the dictionaries; UN where they do not know it (PS3.5 6.2.2).

    Of a private element they ask for its creator, as it stands in `ds`; a creator that is no text names nobody.
    """
    found: dict[str, Any] = {}
    try:
        hooks.raw_element_vr(raw, found, ds=ds)
    except PYDICOM_ERRORS:
        return "UN"
    return str(found["VR"])
