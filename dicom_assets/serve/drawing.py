"""A frame drawn as an image that any browser shows, by pydicom's functions for the pixel pipeline (PS3.4 N.2).

Belongs here: modality, VOI, presentation, colour, the part and the size that are wanted, JPEG and PNG; which grey
values a frame has. Does not belong here: reading parameters of a request (`rendering`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
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


def draw(frame: bytes, row: Mapping[str, Any], attributes: Mapping[str, Any], wish: Wish) -> bytes:
    """One frame as an encoded image.

    frame: as `bytes_of.OpenInstance.frame` gives it, native ones in little endian. row: of flat_metadata, with the
    transfer syntax that the frame has. attributes: DICOM JSON of group 0028 and of functional groups, of those per
    frame the one of this frame alone, values inline. Raises Undecodable.
    """
    header, pixels = _decoded(frame, row, attributes)
    photometric = row["PhotometricInterpretation"] or "MONOCHROME2"
    with _explained():
        if photometric == "PALETTE COLOR":
            grey_or_colour = _eight_bits(processing.apply_color_lut(pixels, header))
        elif pixels.ndim == 3:
            grey_or_colour = _eight_bits(pixels)
        else:
            grey_or_colour = _grey(pixels, header, wish.window)
            if photometric == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
                grey_or_colour = 255 - grey_or_colour
    return _encoded(Image.fromarray(np.ascontiguousarray(grey_or_colour)), wish)


def grey_values(frame: bytes, row: Mapping[str, Any], attributes: Mapping[str, Any], wish: Wish) -> bytes:
    """JSON: lowest and highest grey value of a frame, in units of the modality, and the window that it brings along.

    low, high: null in colour. window: [centre, width], or null. table: whether a VOI LUT stands before it. Arguments as
    of `draw`, of the wish nothing. Raises Undecodable.
    """
    header, pixels = _decoded(frame, row, attributes)
    if pixels.ndim == 3 or row["PhotometricInterpretation"] == "PALETTE COLOR":
        return orjson.dumps({"low": None, "high": None, "window": None, "table": False})
    with _explained():
        told = _told(pixels, processing.apply_modality_lut(pixels, header), header)
        window = _own_window(header)
        return orjson.dumps(
            {
                "low": float(told.min()),
                "high": float(told.max()),
                "window": None if window is None else list(window),
                "table": bool(header.get("VOILUTSequence")),
            }
        )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (AttributeError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        raise Undecodable("what it says of its grey values cannot be applied") from None


def _decoded(frame: bytes, row: Mapping[str, Any], attributes: Mapping[str, Any]) -> tuple[Dataset, Pixels]:
    header = _dataset(attributes)
    keyword = next((one for one in ("FloatPixelData", "DoubleFloatPixelData") if one in header), "PixelData")
    planar = header.get("PlanarConfiguration") or 0
    return header, decode(frame, row, {"planar_configuration": planar, "pixel_keyword": keyword})


def _dataset(attributes: Mapping[str, Any]) -> Dataset:
    """The attributes that count for a frame: its own functional groups before the shared ones (PS3.3 C.7.6.16)."""
    try:
        header = Dataset.from_json(dict(attributes))
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # in which words of tables are
        shared = header.get("SharedFunctionalGroupsSequence") or []
        own = header.get("PerFrameFunctionalGroupsSequence") or []
        for group in (*shared[:1], *own[:1]):
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in (group.get(name) or [])[:1]:
                    header.update({element.tag: element for element in item})
    except Exception:  # noqa: BLE001 - pydicom raises whatever it likes over values that do not fit their VR
        raise Undecodable("what it says of its pixels is not valid") from None
    return header


def _grey(pixels: Pixels, header: Dataset, window: tuple[float, float, str] | None) -> Pixels:
    """Grey values of 8 bits, 0 to 255 from dark to light as MONOCHROME2 has them.

    A frame of a quarter of a million pixels has some thousand different ones: each is looked at once.
    """
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        return _shades(pixels, header, window)
    low = int(pixels.min())
    places = pixels.astype(np.int32)
    places -= low
    is_there = np.bincount(places.ravel()) > 0
    table = np.zeros(is_there.shape, np.uint8)
    table[is_there] = _shades((np.flatnonzero(is_there) + low).astype(pixels.dtype), header, window)
    found: Pixels = table[places]
    return found


def _shades(pixels: Pixels, header: Dataset, window: tuple[float, float, str] | None) -> Pixels:
    """As `_grey`, for values in any shape: what one becomes follows from it, and from which others there are."""
    values = processing.apply_modality_lut(pixels, header)
    if window is not None:
        header.WindowCenter, header.WindowWidth, header.VOILUTFunction = window
        header.pop("VOILUTSequence", None)
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2]) or 16
        return _scaled(processing.apply_voi(values, header), 0, 2**bits - 1)
    own = _own_window(header)
    if own is not None:
        centre, width = own
        # Two values far outside come along, to see what the window makes of black and of white.
        ends = np.array([centre - _FAR * max(width, 1), centre + _FAR * max(width, 1)])
        shown = processing.apply_windowing(np.concatenate([values.astype(np.float64).ravel(), ends]), header)
        return _scaled(shown[:-2].reshape(values.shape), shown[-2], shown[-1])
    told = _told(pixels, values, header)
    return _scaled(values, told.min(), told.max())


def _told(pixels: Pixels, values: Pixels, header: Dataset) -> Pixels:
    """The values that are no padding, where there are some."""
    padding = header.get("PixelPaddingValue")
    return values[pixels != padding] if padding is not None and (pixels != padding).any() else values


def _own_window(header: Dataset) -> tuple[float, float] | None:
    """The first window that a header says, if it is one (PS3.3 C.11.2.1.2)."""
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width < (1 if _is_linear(header) else 1e-9):
        return None
    return centre, width


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
