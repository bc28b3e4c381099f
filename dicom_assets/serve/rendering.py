"""Retrieve rendered images and thumbnails (WADO-RS, PS3.18 10.4, and 8.3.5 for the parameters).

Belongs here: the resources, their parameters, which frame of which instance stands for a series or a study. Does not
belong here: drawing (`drawing`), the process in which that is done (`drawers`).
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response

from dicom_assets.dicom.frames import FrameError, Lack
from dicom_assets.dicom.header import WHOLE
from dicom_assets.dicom.pixels import frame_bits, frame_count
from dicom_assets.dicom.references import NoReference, parse
from dicom_assets.dicom.syntax import is_encapsulated, is_little
from dicom_assets.serve.bytes_of import OpenInstance, drawn, header_of, lacking, read_to_draw, told_syntax
from dicom_assets.serve.call import Call
from dicom_assets.serve.decoding import UNDECODABLE, Undecodable, decoder_of, lacking_decoder, swapped
from dicom_assets.serve.frames import frame_numbers
from dicom_assets.serve.kept import Kept
from dicom_assets.serve.media import Offer, choose, ranges
from dicom_assets.serve.places import Found, find, find_all
from dicom_assets.serve.problems import Refusal, bad_parameter
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.streaming import finish
from dicom_assets.serve.wish import Wish

JPEG, PNG = "image/jpeg", "image/png"
_OFFERS = (Offer(JPEG), Offer(PNG))
_THUMBNAIL = (200, 200)
SIDE_MOST = 8_192
"""Pixels of a side into which an image is fitted: with 16,384 a colour image takes longer than a drawer may."""

_WHOLE_SIDE = 65_535
"""The largest that Rows and Columns can be."""

_FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
_GROUPS = ("0028", "2050")
_SHARED, _PER_FRAME = "52009229", "52009230"
_FUNCTIONAL = (_SHARED, _PER_FRAME)
_LARGEST_TABLE = 1 << 20
_KEPT_BYTES = 32 << 20


class Appearances:
    """What headers say of how pixels are shown, by batch and object_id: a viewer draws one image again and again."""

    def __init__(self) -> None:
        """Keeps nothing yet."""
        self.kept: Kept[dict[str, Any]] = Kept(_KEPT_BYTES)


async def render(call: Call) -> Response:
    """An image as it would be looked at."""
    return await _render(call, None)


async def thumbnail(call: Call) -> Response:
    """A small image that stands for it."""
    return await _render(call, _THUMBNAIL)


async def _render(call: Call, size: tuple[int, int] | None) -> Response:
    kind = choose(ranges(call.request), _OFFERS).offer.kind
    wish = wish_of(call.request.query_params, kind, size)
    number = _number(call)
    found = await call.ask_for_body(partial(_standing_for, call))
    headers = {}
    if call.request.query_params.get("annotation"):
        headers["Warning"] = f'299 {call.request.url.netloc} "annotation: nothing is written into images here"'
    return Response(await image_of(call, found, number, wish), 200, headers, kind)


def _number(call: Call) -> int | None:
    text = call.request.path_params.get("frames")
    if text is None:
        return None
    numbers = frame_numbers(text)
    if len(numbers) > 1:
        raise bad_parameter("frames", "one frame is drawn at a time.")
    return numbers[0]


async def image_of(call: Call, found: Found, number: int | None, wish: Wish) -> bytes:
    """A frame of an instance, drawn; without a number the one in the middle. Raises Refusal."""
    return await made_of_frame(call, found, number, "draw", wish)


async def made_of_frame(call: Call, found: Found, number: int | None, job: str, wish: Wish) -> bytes:
    """What a job of `drawer.JOBS` that takes a frame with its attributes makes of it. Raises Refusal."""
    kept = call.served.part(Appearances).kept
    header = None
    if kept.get(found.name) is None:
        header = await call.ask_for_body(lambda: header_of(call.snapshot(), found))
    instance = OpenInstance(call.served, found)
    try:
        return await read_to_draw(call, partial(_made, instance, header, number, job, wish))
    finally:
        await finish(instance.close)


def _made(instance: OpenInstance, header: bytes | None, number: int | None, job: str, wish: Wish) -> bytes:
    row = instance.open().pixels
    if not row.get("pixel_length"):
        raise lacking(FrameError(Lack.NO_PIXELS))
    number = (frame_count(row) or 1) // 2 + 1 if number is None else number
    if wish.part is not None and not (wish.part[0] < (row["Columns"] or 0) and wish.part[1] < (row["Rows"] or 0)):
        raise bad_parameter("viewport", "its part lies outside of the image.")
    syntax = row["TransferSyntaxUID"]
    if is_encapsulated(syntax) and decoder_of(syntax) is None:
        raise Refusal(406, lacking_decoder(syntax))
    try:
        frame = instance.frame(number)
        told = {**row, "TransferSyntaxUID": told_syntax(row), "frame_offsets": None, "frame_lengths": None}
        return drawn(instance.served, job, frame, told, _of_frame(_attributes(header, instance), number), wish)
    except FrameError as error:
        raise lacking(error) from None
    except Undecodable as error:
        raise Refusal(422, f"{UNDECODABLE}: {error}.") from None


def _of_frame(attributes: dict[str, Any], number: int) -> dict[str, Any]:
    """The attributes with the functional groups of one frame alone: a thousand others would be read in vain."""
    own = attributes.get(_PER_FRAME)
    if own is None:
        return attributes
    return {**attributes, _PER_FRAME: {**own, "Value": own.get("Value", [])[number - 1 : number]}}


def _attributes(header: bytes | None, instance: OpenInstance) -> dict[str, Any]:
    """What of a header says how pixels are shown, tables that it refers to put in; None: it is kept already."""
    kept = instance.served.part(Appearances).kept
    found = kept.get(instance.found.name)
    if found is None:
        assert header is not None, "what is not kept is read"
        found = _read_attributes(header, instance)
        kept.keep(instance.found.name, found, 2 * len(orjson.dumps(found)) + 500)
    return found


def _read_attributes(header: bytes, instance: OpenInstance) -> dict[str, Any]:
    elements: dict[str, Any] = orjson.loads(header)
    wanted = {
        tag: one for tag, one in elements.items() if tag.startswith(_GROUPS) or tag in _FUNCTIONAL or tag[:4] == "7FE0"
    }
    return {tag: _inline(one, instance) for tag, one in wanted.items()}


def _inline(element: Mapping[str, Any], instance: OpenInstance) -> dict[str, Any]:
    if element.get("vr") == "SQ":
        items = [{tag: _inline(one, instance) for tag, one in item.items()} for item in element.get("Value", ())]
        return {"vr": "SQ", "Value": items}
    if "BulkDataURI" not in element:
        return dict(element)
    try:
        reference = parse(element["BulkDataURI"])
    except NoReference:
        return {"vr": element["vr"]}
    if reference.length > _LARGEST_TABLE or reference.encapsulated:
        return {"vr": element["vr"]}
    raw = instance.value(reference.offset, reference.length)
    if not is_little(instance.pixels["TransferSyntaxUID"]) and element["vr"] == "OW":
        raw = swapped(raw, 2)
    return {"vr": element["vr"], "InlineBinary": b64encode(raw).decode("ascii")}


def _standing_for(call: Call) -> Found:
    """The instance that stands for what was asked for: the one in the middle of those with pixels. Raises Refusal."""
    if "instance" in call.uids:
        return find(call, call.uids)
    images = [one for one in find_all(call, call.uids) if _has_pixels(one.pixels)]
    if not images:
        raise lacking(FrameError(Lack.NO_PIXELS))
    return images[len(images) // 2]


def _has_pixels(row: Mapping[str, Any]) -> bool:
    return bool(row["pixel_length"]) if row["header_form"] == WHOLE else frame_bits(row) is not None


# Parameters


def wish_of(asked: Mapping[str, str], kind: str, size: tuple[int, int] | None) -> Wish:
    """How an image is wanted. Raises Refusal (400)."""
    wish = Wish(kind, size=size)
    if asked.get("quality"):
        wish = wish._replace(quality=_whole("quality", asked["quality"], 1, 100))
    if asked.get("viewport"):
        words = asked["viewport"].split(",")
        sides = [_number_of("viewport", one) for one in words[:2]]
        if not 2 <= len(words) <= 6 or not all(1 <= one <= SIDE_MOST for one in sides):
            raise bad_parameter("viewport", f"width and height from 1 to {SIDE_MOST} are needed, and perhaps a part.")
        wish = wish._replace(size=(int(sides[0]), int(sides[1])))
        if len(words) > 2:
            x, y, across, down = _part(words[2:])
            if x < 0 or y < 0 or not across or not down:
                raise bad_parameter("viewport", "its part needs a corner that is not negative, and a size.")
            wish = wish._replace(part=(x, y, across, down))
    if asked.get("window"):
        words = asked["window"].split(",")
        function = _FUNCTIONS.get(words[2].strip().lower()) if len(words) == 3 else "LINEAR"
        if not 2 <= len(words) <= 3 or function is None:
            raise bad_parameter("window", f"centre, width and one of {', '.join(_FUNCTIONS)} are needed.")
        centre, width = (_number_of("window", one) for one in words[:2])
        if width < 1 if function == "LINEAR" else width <= 0:
            raise bad_parameter("window", "its width is too small for its function.")
        wish = wish._replace(window=(centre, width, function))
    return wish


def _part(words: Sequence[str]) -> tuple[int, int, int, int]:
    """x, y, width and height of the source: what is left out is its corner, or all of it (PS3.18 8.3.5)."""
    asked = [*words, "", "", ""][:4]
    unsaid = (0, 0, _WHOLE_SIDE, _WHOLE_SIDE)
    x, y, across, down = (
        int(_number_of("viewport", one)) if one else most for one, most in zip(asked, unsaid, strict=True)
    )
    return x, y, across, down


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise bad_parameter(name, f"a whole number from {least} to {most} is needed.")
    return int(text)


def _number_of(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) < 1e9:
        raise bad_parameter(name, "numbers with commas between them are needed.")
    return number


_PARAMETERS = (
    Parameter("quality", "Of JPEG, from 1 to 100.", "integer"),
    Parameter(
        "viewport",
        f"Width and height, {SIDE_MOST:,} at most, into which it is fitted, and perhaps x, y, width, height of the "
        "source; of these each may be left out between its commas.",
    ),
    Parameter("window", "Centre, width and function: linear, linear-exact or sigmoid."),
    Parameter("annotation", "Nothing is written into an image; where it is asked for, a header `Warning` says so."),
    Parameter("accept", "Media types that stand for the header Accept."),
)
_STATUSES = (200, 404, 409, 410, 422)
_PATHS = (
    "/studies/{study}",
    "/studies/{study}/series/{series}",
    "/studies/{study}/series/{series}/instances/{instance}",
    "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}",
)

RESOURCES: tuple[Resource, ...] = tuple(
    Resource("GET", path + ending, transaction, "10.4", (JPEG, PNG), endpoint, _PARAMETERS, (), _STATUSES)
    for ending, transaction, endpoint in (
        ("/rendered", "Retrieve Rendered", render),
        ("/thumbnail", "Retrieve Thumbnail", thumbnail),
    )
    for path in _PATHS
)
