"""Windows that people choose by name, by modality.

Belongs here: the list. Does not belong here: windows that a file brings along, which come before these.

Of CT alone, whose values mean the same everywhere (Hounsfield units); grey values of other modalities do not.
"""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """A window. centre, width: in units of the modality (PS3.3 C.11.2.1.2)."""

    name: str
    centre: float
    width: float


PRESETS: dict[str, tuple[Preset, ...]] = {
    "CT": (
        Preset("Soft tissue", 40, 400),
        Preset("Lung", -600, 1500),
        Preset("Bone", 400, 1800),
        Preset("Brain", 40, 80),
        Preset("Subdural", 75, 215),
        Preset("Liver", 60, 160),
        Preset("Vessels", 300, 600),
    ),
}
"""By Modality (0008,0060)."""
