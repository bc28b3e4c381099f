"""Retrieve one object by parameters of a query (WADO-URI, PS3.18 9), for Weasis and older viewers.

Belongs here: the resource and its parameters. Does not belong here: whole objects (`objects`), images (`rendering`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.responses import Response

from dicom_assets.dicom.pixels import frame_count
from dicom_assets.serve import objects
from dicom_assets.serve.call import Call
from dicom_assets.serve.decoding import decoder_of
from dicom_assets.serve.frames import frame_numbers
from dicom_assets.serve.media import DICOM, Choice, Offer, Range, choose, ranges
from dicom_assets.serve.places import Found, find
from dicom_assets.serve.problems import bad_parameter
from dicom_assets.serve.rendering import JPEG, PNG, SIDE_MOST, image_of, wish_of
from dicom_assets.serve.resource import Parameter, Resource

_UIDS = {"study": "studyUID", "series": "seriesUID", "instance": "objectUID"}


async def retrieve(call: Call) -> Response:
    """One object, or a frame of it drawn."""
    asked = call.request.query_params
    uids = _uids(asked)
    accepted = _accepted(call)
    number = asked.get("frameNumber")
    numbers: list[int] = frame_numbers(number) if number else []
    if len(numbers) > 1:
        raise bad_parameter("frameNumber", "one frame is drawn at a time.")
    found = await call.ask_for_body(partial(find, call, uids))
    choice = choose(accepted, _offers(found))
    if choice.offer.kind == DICOM:
        if number:
            raise bad_parameter("frameNumber", "it is for images; an object comes whole.")
        return await objects.answer(call, [found], Choice(choice.offer, False, choice.transfer_syntax))
    wish = wish_of(_as_of_rendered(asked), choice.offer.kind, None)
    return Response(await image_of(call, found, numbers[0] if numbers else None, wish), media_type=choice.offer.kind)


def _uids(asked: Mapping[str, str]) -> dict[str, str]:
    if asked.get("requestType", "").upper() != "WADO":
        raise bad_parameter("requestType", "WADO is the only one here.")
    for name in _UIDS.values():
        if not asked.get(name):
            raise bad_parameter(name, "it is needed.")
    if asked.get("anonymize"):
        raise bad_parameter("anonymize", "objects are given as they are; nothing is taken out of them here.")
    return {name: asked[parameter] for name, parameter in _UIDS.items()}


def _accepted(call: Call) -> list[Range]:
    """What is accepted: contentType, or else what the client's headers say."""
    asked = call.request.query_params
    syntax = asked.get("transferSyntax") or None
    if not asked.get("contentType"):
        return [one._replace(transfer_syntax=syntax or one.transfer_syntax) for one in ranges(call.request)]
    kinds = [one.partition(";")[0].strip().lower() for one in asked["contentType"].split(",")]
    return [Range(kind, False, syntax if kind == DICOM else None, 1.0) for kind in kinds]


def _offers(found: Found) -> list[Offer]:
    """An image of one frame is drawn unless something else is asked for (PS3.18 9.4), where that can be done."""
    row = found.pixels
    whole = Offer(DICOM, (row["TransferSyntaxUID"] or "",))
    drawn = [Offer(JPEG), Offer(PNG)]
    is_native = row.get("frame_offsets") is None
    is_image = bool(row["pixel_length"]) and (is_native or decoder_of(row["TransferSyntaxUID"]) is not None)
    return [*drawn, whole] if is_image and (frame_count(row) or 1) == 1 else [whole, *drawn]


def _as_of_rendered(asked: Mapping[str, str]) -> dict[str, str]:
    """Parameters as `…/rendered` calls them (PS3.18 9.4.1.2)."""
    told: dict[str, str] = {}
    if asked.get("imageQuality"):
        told["quality"] = asked["imageQuality"]
    if asked.get("windowCenter") or asked.get("windowWidth"):
        told["window"] = f"{asked.get('windowCenter', '')},{asked.get('windowWidth', '')}"
    if asked.get("rows") or asked.get("columns"):
        told["viewport"] = f"{asked.get('columns') or SIDE_MOST},{asked.get('rows') or SIDE_MOST}"
    return told


_PARAMETERS = (
    Parameter("requestType", "WADO."),
    Parameter("studyUID", "Study Instance UID."),
    Parameter("seriesUID", "Series Instance UID."),
    Parameter("objectUID", "SOP Instance UID."),
    Parameter("contentType", "Media types, the best first; instead of the header Accept."),
    Parameter("transferSyntax", "Of the object; no other than the stored one can be given."),
    Parameter("frameNumber", "The frame that is drawn, from 1.", "integer"),
    Parameter("imageQuality", "Of JPEG, from 1 to 100.", "integer"),
    Parameter("windowCenter", "With windowWidth: grey values that are shown.", "number"),
    Parameter("windowWidth", "See windowCenter.", "number"),
    Parameter("rows", "Height into which it is fitted.", "integer"),
    Parameter("columns", "Width into which it is fitted.", "integer"),
)

RESOURCES: tuple[Resource, ...] = tuple(
    Resource(
        "GET",
        path,
        "Retrieve Object by URI",
        "9.4",
        (JPEG, PNG, DICOM),
        retrieve,
        _PARAMETERS,
        statuses=(200, 404, 409, 410, 422),
    )
    for path in ("", "/wado")
)
