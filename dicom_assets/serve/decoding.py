"""Frames decoded, by pydicom, Pillow and the decoders that the extra `viewer` installs.

Belongs here: from a codestream to pixels in explicit little endian, and which transfer syntaxes that can be done for.
Does not belong here: which bytes are a frame (`dicom.frames`), drawing it (`rendering`).

What a decoder gives of YBR_FULL and YBR_FULL_422 is turned into RGB, as pydicom does it for `pixel_array`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID

from dicom_assets.dicom.syntax import is_encapsulated

UNDECODABLE = "FRAME_UNDECODABLE"
"""Code of a frame whose bytes are there and are no image."""

INSTALL = "pip install 'dicom-assets[viewer]'"
"""What brings the decoders that do not come with the package."""

_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored")


class Undecodable(ValueError):
    """A frame that does not decode. The message quotes nothing of it."""


def decoder_of(transfer_syntax: str | None) -> Decoder | None:
    """The decoder of encapsulated frames, None where none is installed or known."""
    if transfer_syntax is None or not is_encapsulated(transfer_syntax):
        return None
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        return None
    return decoder if decoder.is_available else None


def lacking_decoder(transfer_syntax: str) -> str:
    """What is said of frames for which `decoder_of` has none: what to install, where that would help."""
    name = UID(transfer_syntax).name if UID(transfer_syntax).is_transfer_syntax else "its transfer syntax"
    try:
        get_decoder(transfer_syntax)
    except NotImplementedError:
        return f"Nothing decodes {name} here. The object can be had as it is stored."
    return f"Nothing that is installed here decodes {name}. `{INSTALL}` brings what does."


def decode(frame: bytes, row: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> npt.NDArray[Any]:
    """The pixels of one frame: rows, columns and, in colour, samples.

    frame: as `dicom.frames.read_frame` gives it. row: of flat_metadata. header: what the row does not say of native
    pixels: their VR and planar configuration. Raises Undecodable.
    """
    syntax = row["TransferSyntaxUID"]
    if any(row.get(name) is None for name in _NEEDED):
        raise Undecodable("the object does not say what its pixels are")
    options: dict[str, Any] = {
        "rows": row["Rows"],
        "columns": row["Columns"],
        "samples_per_pixel": row["SamplesPerPixel"] or 1,
        "bits_allocated": row["BitsAllocated"],
        "bits_stored": row["BitsStored"],
        "pixel_representation": row["PixelRepresentation"] or 0,
        "photometric_interpretation": row["PhotometricInterpretation"] or "MONOCHROME2",
        "planar_configuration": 0,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        **(header or {}),
    }
    encapsulated = is_encapsulated(syntax)
    try:
        decode_array = get_decoder(syntax).as_array
    except NotImplementedError:
        raise Undecodable("there is no decoder for its transfer syntax") from None
    source = encapsulate([frame], has_bot=False) if encapsulated else frame
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, _ = decode_array(source, index=0, **options)
    except Exception:  # noqa: BLE001 - decoders raise whatever they like over bytes that are no image
        raise Undecodable("none of the decoders that are installed here makes an image of its bytes") from None
    return pixels


def decoded(frame: bytes, row: Mapping[str, Any]) -> bytes:
    """The pixels of one encapsulated frame as native Pixel Data has them in little endian. Raises Undecodable."""
    pixels = decode(frame, row)
    kind = np.dtype(f"<{'i' if row['PixelRepresentation'] else 'u'}{max(row['BitsAllocated'] // 8, 1)}")
    return pixels.astype(kind, copy=False).tobytes()


def swapped(frame: bytes, unit: int) -> bytes:
    """Words of `unit` bytes in the other byte order; bytes that fill no word are left as they are."""
    if unit < 2:
        return frame
    whole = len(frame) - len(frame) % unit
    return np.frombuffer(frame[:whole], f">u{unit}").astype(f"<u{unit}").tobytes() + frame[whole:]
