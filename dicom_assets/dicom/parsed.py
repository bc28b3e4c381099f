"""What a tier finds in a data set, before it is judged as a whole (`header`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_assets.dicom.flaws import SOUND
from dicom_assets.dicom.heads import Encoding
from dicom_assets.settings import ReadingLimits


@dataclass(slots=True)
class Parsed:
    """One data set.

    parts: members of its DICOM JSON object, one or several in each. columns: values by column. flaws: bits of `flaws`.
    end: where reading ended, in bytes of the data set's source. at_pixels: pixel data starts there. truncated: the
    object ends inside an element. trailing: bytes are left that are no element. last: tag of the last element.
    encoding: how elements are written, where that is not what was declared. tables: offset and length of the values of
    `pixels.OFFSET_TABLES`, where they are there.
    """

    parts: Sequence[bytes] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    flaws: int = SOUND
    end: int = 0
    at_pixels: bool = False
    truncated: bool = False
    trailing: bool = False
    last: int = 0
    encoding: Encoding | None = None
    tables: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def json(self) -> bytes:
        """Members of its DICOM JSON object, without braces."""
        return b",".join(self.parts)


def exceeds(parts: Sequence[bytes], fragment: bytes, limits: ReadingLimits) -> bool:
    """Whether the DICOM JSON of an object would be too long with this fragment; the same however it was read."""
    return sum(map(len, parts)) + len(parts) + len(fragment) > limits.max_header_bytes
