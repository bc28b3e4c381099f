"""What the plain viewer needs of a series, beside DICOMweb: its images in order, what each of them is, windows.

Belongs here: the list, and the grey values of one frame. Does not belong here: the order itself (`image_order`),
drawing (`serve.rendering`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from dicom_assets.lake.quoting import named
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.call import Call
from dicom_assets.serve.frames import frame_numbers
from dicom_assets.serve.newest import newest
from dicom_assets.serve.places import find
from dicom_assets.serve.problems import bad_parameter, not_found
from dicom_assets.serve.rendering import JPEG, made_of_frame
from dicom_assets.serve.viewing.image_order import in_order
from dicom_assets.serve.viewing.object_kinds import Kind, kind_of, sentence_of
from dicom_assets.serve.viewing.presets import PRESETS
from dicom_assets.serve.wish import Wish

MOST = 20_000
"""Images of a series that are listed."""

_COLUMNS = (
    *("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "WindowCenter", "WindowWidth", "PixelSpacing", "ImagerPixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "Modality"),
)
_GREY = ("MONOCHROME1", "MONOCHROME2", None)


async def images(call: Call) -> Response:
    """The images of a series as JSON."""
    return Response(await call.ask(lambda: _listed(call)), media_type="application/json")


def _listed(call: Call) -> bytes:
    rows = _rows(call)
    left_out = len(rows) > MOST
    shown = in_order(rows[:MOST], lambda row: kind_of(row) is Kind.IMAGE)
    modality = next((row["Modality"] for row in rows if row["Modality"]), None)
    found = {
        "modality": modality,
        "left_out": left_out,
        "presets": [one._asdict() for one in PRESETS.get(modality or "", ())],
        "images": [_image(row, position) for row, position in shown],
    }
    return orjson.dumps(found)


def _rows(call: Call) -> list[dict[str, Any]]:
    snapshot = call.snapshot()
    rows = newest(snapshot, Level.INSTANCE, call.uids, columns=_COLUMNS)
    with snapshot.cursor() as connection:
        found = connection.execute(
            f"""
            -- one row per instance of the series
            SELECT {", ".join(map(named, _COLUMNS))} FROM {rows.sql} AS instance
            ORDER BY InstanceNumber, SOPInstanceUID LIMIT {MOST + 1}
            """,
            [*rows.parameters],
        ).fetchall()
    if not found:
        raise not_found("series")
    return [dict(zip(_COLUMNS, row, strict=True)) for row in found]


def _image(row: Mapping[str, Any], position: float | None) -> dict[str, Any]:
    """What the page knows of an instance without its header; what is not told is left out."""
    kind = kind_of(row)
    made: dict[str, Any] = {
        "uid": row["SOPInstanceUID"],
        "kind": kind,
        "number": row["InstanceNumber"],
        "says": sentence_of(row) if kind is Kind.OTHER else None,
    }
    if kind is Kind.IMAGE:
        made |= {
            "rows": row["Rows"],
            "columns": row["Columns"],
            "frames": max(row["NumberOfFrames"] or 1, 1),
            "grey": row["PhotometricInterpretation"] in _GREY and (row["SamplesPerPixel"] or 1) == 1,
            "windows": _windows(row),
            "tall": _tall(row),
            "thick": row["SliceThickness"],
            "at": position,
            "directions": row["ImageOrientationPatient"],
        }
    return {name: value for name, value in made.items() if value is not None}


def _windows(row: Mapping[str, Any]) -> list[list[float]]:
    """Centres and widths that the object brings along, as far as it has both."""
    pairs = zip(_list(row["WindowCenter"]), _list(row["WindowWidth"]), strict=False)
    return [[centre, width] for centre, width in pairs if centre is not None and width is not None and width > 0]


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _tall(row: Mapping[str, Any]) -> float | None:
    """How much higher than wide a pixel is, where it is not square."""
    spacing = row["PixelSpacing"] or row["ImagerPixelSpacing"]
    if not spacing or len(spacing) != 2 or not all(one is not None and 0 < one < 1e4 for one in spacing):
        return None
    ratio = spacing[0] / spacing[1]
    return None if abs(ratio - 1) < 0.001 or not 0.02 < ratio < 50 else float(ratio)


async def grey_values(call: Call) -> Response:
    """Lowest and highest grey value of a frame, and its own window, as JSON (`drawing.grey_values`)."""
    numbers = frame_numbers(call.request.path_params["frames"])
    if len(numbers) > 1:
        raise bad_parameter("frames", "one frame is looked at at a time.")
    found = await call.ask(lambda: find(call, call.uids))
    return Response(
        await made_of_frame(call, found, numbers[0], "grey_values", Wish(JPEG)), media_type="application/json"
    )
