"""The elements that the Basic Application Level Confidentiality Profile is about (PS3.15 Table E.1-1).

Belongs here: one question, whether an element stands in that table, and what becomes of it. The table is that of
dicom-anonymizer, edition 2026c; another one takes its place here alone.
"""

from __future__ import annotations

from collections.abc import Mapping

EDITION = "2026c"
_DATABASE = f"dicomfields_{EDITION}"
_GROUPS = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}
PRIVATE = "X"


class ProfileElements:
    """The table. actions: by tag as a number, as the standard writes them (X, Z, D, U and what is made of these)."""

    def __init__(self) -> None:
        """Reads it from the library. Raises ImportError without the extra `deidentify`."""
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

        found = dicom_anonymization_database_selector(_DATABASE)
        self.actions: Mapping[int, str] = {
            tag[0] << 16 | tag[1]: action for group, action in _GROUPS.items() for tag in found[group] if len(tag) == 2
        }
        self._ranges = [
            (tag, action) for group, action in _GROUPS.items() for tag in found[group] if len(tag) == 4
        ]  # of groups that repeat, with the bits that count

    def action_of(self, tag: int) -> str | None:
        """What the profile does with an element; None where it does not stand in the table."""
        if tag >> 16 & 1:
            return PRIVATE
        known = self.actions.get(tag)
        if known is not None:
            return known
        group, element = tag >> 16, tag & 0xFFFF
        for (of_group, of_element, group_bits, element_bits), action in self._ranges:
            if group & group_bits == of_group & group_bits and element & element_bits == of_element & element_bits:
                return action
        return None
