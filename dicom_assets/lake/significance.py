"""What of a value counts when two are compared: SQL for the form in which values that say the same are equal.

Belongs here: one form for each kind of column (PS3.5 6.2: padding; 6.2.1: names). The hierarchy counts by it, conflicts
are found by it. Does not belong here: which values belong together (`dicom_assets.curation`).

Case is as it was observed. Of names trailing empty components and delimiters do not count, nor does space around a
component; a column has one representation of a name. A fraction of a second ends with its last digit that is not zero.
What is missing has no form: NULL.
"""

from __future__ import annotations

from dicom_assets.lake.subjects import clean
from dicom_assets.schema.attributes import ATTRIBUTES

NAMES = ("patient_ideographic_name", "patient_phonetic_name")
"""Columns with names of persons that are no attributes of their own."""

_VR = {attribute.keyword: attribute.vr for attribute in ATTRIBUTES} | dict.fromkeys(NAMES, "PN")
_MULTIPLE = {attribute.keyword for attribute in ATTRIBUTES if attribute.multiple}
_TEXTS = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"}


def significant(column: str) -> str:
    """SQL for the form of a column of `instance` by which its values are compared, as text."""
    vr, named = _VR.get(column, "LO"), f'"{column}"'
    if column in _MULTIPLE:
        one = "one::VARCHAR" if vr not in _TEXTS else _text("one", vr)
        return f"nullif(array_to_string([{one} FOR one IN {named}], '\\'), '')"
    if vr == "TM":
        return f"regexp_replace(regexp_replace({named}, '(\\.[0-9]*?)0+$', '\\1'), '\\.$', '')"
    return _text(named, vr) if vr in _TEXTS else f"{named}::VARCHAR"


def _text(value: str, vr: str) -> str:
    if vr != "PN":
        return clean(value)
    components = f"regexp_replace({clean(value)}, ' *\\^ *', '^', 'g')"
    return f"nullif(regexp_replace({components}, '[\\^ ]+$', ''), '')"
