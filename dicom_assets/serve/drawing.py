"""A frame drawn as an image that any browser shows, by pydicom's functions for the pixel pipeline (PS3.4 N.2).

Belongs here: modality, VOI, presentation, colour, the part and the size that are wanted, JPEG and PNG. Does not belong
here: reading parameters of a request (`rendering`). Imports what only the extra `viewer` installs.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.pixels import processing
from pydicom.uid import ExplicitVRLittleEndian

from dicom_assets.serve.decoding import Undecodable, decode
from dicom_assets.serve.wish import Wish

Pixels = npt.NDArray[Any]

_FAR = 1e7
"""Widths of a window from its centre, beyond which everything is black or white."""


def draw(frame: bytes, row: Mapping[str, Any], attributes: Mapping[str, Any], number: int, wish: Wish) -> bytes:
    """One frame as an encoded image.

    frame: as `bytes_of.OpenInstance.frame` gives it, native ones in little endian. row: of flat_metadata, with the
    transfer syntax that the frame has. attributes: DICOM JSON of group 0028 and of functional groups, values inline.
    number: of the frame, from 1. Raises Undecodable.
    """
    header = _dataset(attributes, number)
    keyword = next((one for one in ("FloatPixelData", "DoubleFloatPixelData") if one in header), "PixelData")
    pixels = decode(
        frame, row, {"planar_configuration": header.get("PlanarConfiguration") or 0, "pixel_keyword": keyword}
    )
    photometric = row["PhotometricInterpretation"] or "MONOCHROME2"
    try:
        if photometric == "PALETTE COLOR":
            grey_or_colour = _eight_bits(processing.apply_color_lut(pixels, header))
        elif pixels.ndim == 3:
            grey_or_colour = _eight_bits(pixels)
        else:
            grey_or_colour = _grey(pixels, header, wish.window)
            if photometric == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
                grey_or_colour = 255 - grey_or_colour
    except (AttributeError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        raise Undecodable("what it says of its grey values cannot be applied") from None
    return _encoded(Image.fromarray(np.ascontiguousarray(grey_or_colour)), wish)


def _dataset(attributes: Mapping[str, Any], number: int) -> Dataset:
    """The attributes that count for a frame: its own functional groups before the shared ones (PS3.3 C.7.6.16)."""
    try:
        header = Dataset.from_json(dict(attributes))
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # in which words of tables are
        shared = header.get("SharedFunctionalGroupsSequence") or []
        own = header.get("PerFrameFunctionalGroupsSequence") or []
        for group in (*shared[:1], *own[number - 1 : number]):
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in (group.get(name) or [])[:1]:
                    header.update({element.tag: element for element in item})
    except Exception:  # noqa: BLE001 - pydicom raises whatever it likes over values that do not fit their VR
        raise Undecodable("what it says of its pixels is not valid") from None
    return header


def _grey(pixels: Pixels, header: Dataset, window: tuple[float, float, str] | None) -> Pixels:
    """Grey values of 8 bits, 0 to 255 from dark to light as MONOCHROME2 has them."""
    values = processing.apply_modality_lut(pixels, header)
    if window is not None:
        header.WindowCenter, header.WindowWidth, header.VOILUTFunction = window
        header.pop("VOILUTSequence", None)
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2]) or 16
        return _scaled(processing.apply_voi(values, header), 0, 2**bits - 1)
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width >= (1 if _is_linear(header) else 1e-9):
        # Two values far outside come along, to see what the window makes of black and of white.
        ends = np.array([centre - _FAR * max(width, 1), centre + _FAR * max(width, 1)])
        shown = processing.apply_windowing(np.concatenate([values.astype(np.float64).ravel(), ends]), header)
        return _scaled(shown[:-2].reshape(values.shape), shown[-2], shown[-1])
    told = values
    if header.get("PixelPaddingValue") is not None and (pixels != header.PixelPaddingValue).any():
        told = values[pixels != header.PixelPaddingValue]
    return _scaled(values, told.min(), told.max())


def _first(value: Any) -> float | None:
    values = value if isinstance(value, list | MultiValue) else [value]
    return None if not values or values[0] in (None, "") else float(values[0])


def _is_linear(header: Dataset) -> bool:
    return (header.get("VOILUTFunction") or "LINEAR") == "LINEAR"


def _scaled(values: Pixels, low: float, high: float) -> Pixels:
    share = (values.astype(np.float64) - float(low)) / max(float(high) - float(low), 1e-12)
    scaled: Pixels = np.round(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)
    return scaled


def _eight_bits(pixels: Pixels) -> Pixels:
    most = pixels.dtype.itemsize * 8
    shifted: Pixels = (pixels >> (most - 8)).astype(np.uint8) if most > 8 else pixels.astype(np.uint8)
    return shifted


def _encoded(image: Image.Image, wish: Wish) -> bytes:
    if wish.part is not None:
        x, y, width, height = wish.part
        box = (x, y, min(x + abs(width), image.width), min(y + abs(height), image.height))
        if box[2] <= box[0] or box[3] <= box[1]:
            raise Undecodable("the part that was asked for lies outside of it")
        image = image.crop(box)
        if width < 0:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if height < 0:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if wish.size is not None:
        scale = min(wish.size[0] / image.width, wish.size[1] / image.height)
        fitted = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(fitted, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR)
    sink = BytesIO()
    if wish.kind == "image/png":
        image.save(sink, "PNG", compress_level=3)
    else:
        image.save(sink, "JPEG", quality=wish.quality)
    return sink.getvalue()
