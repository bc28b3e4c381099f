"""Retrieve frames, as they are stored or decoded (WADO-RS, PS3.18 10.4).

Belongs here: the resource, which form a frame is given in, the parts of the answer. Does not belong here: which bytes
are a frame (`dicom.frames`), reading them (`bytes_of`), decoding (`decoding`).

A frame that is asked for alone and cannot be given is a refusal. Among others it is a part of text that begins with its
code, since the others are good; that it is not there at all is known before the first of them is sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from dicom_assets.dicom.frames import FrameError, Lack
from dicom_assets.dicom.pixels import frame_count
from dicom_assets.dicom.syntax import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, is_encapsulated
from dicom_assets.serve.bytes_of import OpenInstance, drawn, lacking, read, read_on, told_syntax
from dicom_assets.serve.call import Call
from dicom_assets.serve.decoding import UNDECODABLE, Undecodable, decoder_of
from dicom_assets.serve.media import OCTETS, Choice, Offer, Range, choose, ranges
from dicom_assets.serve.places import find, kept_of, url_of
from dicom_assets.serve.problems import Refusal, bad_parameter
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.streaming import BrokenOff, Parts, Stream, finish

IMAGE_TYPES = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (80, 81)), "image/jls"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (92, 93)), "image/jpx"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (201, 202, 203)), "image/jphc"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{one}" for one in (110, 111, 112)), "image/jxl"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media type of the frames of a transfer syntax (PS3.18 8.7.3)."""

_MOST = 10_000
"""Frames of one request."""
_LIST_CHARACTERS = 100_000
_REFUSED_SYNTAXES = (IMPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)


def offers(row: Mapping[str, Any]) -> list[Offer]:
    """The forms in which frames of an object can be given, as they are stored first. row: of flat_metadata."""
    syntax = row["TransferSyntaxUID"] or IMPLICIT_LITTLE
    if not is_encapsulated(syntax):
        # Frames have no VR: they are the same in both little endian syntaxes, and what is stored may be asked for.
        names = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, *((syntax,) if syntax in _REFUSED_SYNTAXES else ()))
        return [Offer(OCTETS, tuple(dict.fromkeys(names)), multipart=True)]
    found = [Offer(OCTETS, (syntax,), multipart=True)]
    if syntax in IMAGE_TYPES:
        found.append(Offer(IMAGE_TYPES[syntax], (syntax,), multipart=True))
    if decoder_of(syntax) is not None:
        found.append(Offer(OCTETS, (EXPLICIT_LITTLE,), multipart=True))
    return found


def frame_numbers(text: str) -> list[int]:
    """The frames of a path, from 1. Raises Refusal (400)."""
    words = text.split(",") if len(text) <= _LIST_CHARACTERS else []
    numbers = [int(one) for one in words if one.isascii() and one.isdigit() and len(one) < 10]
    if not numbers or len(numbers) != len(words) or min(numbers) < 1 or len(numbers) > _MOST:
        raise bad_parameter("frames", f"up to {_MOST} whole numbers from 1, with commas between them, are needed.")
    return numbers


async def retrieve(call: Call) -> Response:
    """Frames of one instance."""
    numbers = frame_numbers(call.request.path_params["frames"])
    accepted = ranges(call.request)
    if len(numbers) == 1:
        answer = await read(call, partial(_at_once, call, numbers[0], accepted))
        if answer is not None:
            return answer
    found = await call.ask_for_body(lambda: find(call, call.uids))
    instance = OpenInstance(call.served, found)
    try:
        await read(call, instance.open)
        return await _answer(call, instance, numbers, choose(accepted, _checked(instance, numbers)))
    except BaseException:
        await finish(instance.close)
        raise


def _at_once(call: Call, number: int, accepted: Sequence[Range]) -> Response | None:
    """A single frame of an instance whose row is known, in one go; None where the tables must be asked first."""
    found = kept_of(call, call.snapshot(), call.uids)
    if found is None:
        return None
    instance = OpenInstance(call.served, found)
    try:
        instance.open()
        choice = choose(accepted, _checked(instance, [number]))
        is_decoded = _is_decoded(choice, instance)
        frame = _frame(instance, number, is_decoded)
        if isinstance(frame, Refusal):
            raise frame
        return _single(call, instance, number, choice, frame)
    finally:
        instance.close()


def _is_decoded(choice: Choice, instance: OpenInstance) -> bool:
    return choice.transfer_syntax == EXPLICIT_LITTLE and told_syntax(instance.pixels) != EXPLICIT_LITTLE


def _kind(choice: Choice, instance: OpenInstance) -> str:
    """The Content-Type of a frame."""
    told = EXPLICIT_LITTLE if _is_decoded(choice, instance) else told_syntax(instance.pixels)
    return f"{choice.offer.kind}; transfer-syntax={told}"


def _single(call: Call, instance: OpenInstance, number: int, choice: Choice, frame: bytes) -> Response:
    """The answer of one frame."""
    kind = _kind(choice, instance)
    if not choice.is_multipart:
        return Response(frame, media_type=kind)
    parts = Parts(choice.offer.kind)
    begin = parts.begin(kind, f"{url_of(call.base, instance.found.row)}/frames/{number}")
    return Response(b"".join((begin, frame, parts.end)), media_type=parts.media_type)


def _checked(instance: OpenInstance, numbers: Sequence[int]) -> list[Offer]:
    """The forms that frames can be given in. Raises Refusal (404) where one of them is not there."""
    row = instance.pixels
    if not row.get("pixel_length"):
        raise lacking(FrameError(Lack.NO_PIXELS))
    count = frame_count(row)
    if count is not None and max(numbers) > count:
        raise lacking(FrameError(Lack.NO_SUCH_FRAME))
    return offers(row)


async def _answer(call: Call, instance: OpenInstance, numbers: Sequence[int], choice: Choice) -> Response:
    """The answer; it closes the instance when it ends."""
    is_decoded, kind = _is_decoded(choice, instance), _kind(choice, instance)
    if not choice.is_multipart and len(numbers) > 1:
        raise Refusal(406, "Several frames come as multipart/related only. Ask for one at a time, or for that.")
    first = await read(call, partial(_frame, instance, numbers[0], is_decoded))
    if len(numbers) == 1:
        if isinstance(first, Refusal):
            raise first
        await finish(instance.close)
        return _single(call, instance, numbers[0], choice, first)
    parts = Parts(choice.offer.kind)
    where = url_of(call.base, instance.found.row)

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            for at, number in enumerate(numbers):
                frame = first if not at else await read_on(call.served, partial(_frame, instance, number, is_decoded))
                if isinstance(frame, Refusal):
                    frame, own = f"{frame.sentence}\n".encode(), "text/plain; charset=utf-8"
                else:
                    own = kind
                yield parts.begin(own, f"{where}/frames/{number}") + frame
            yield parts.end
        except Refusal:
            raise BrokenOff from None
        finally:
            await finish(instance.close)

    return Stream(pieces(), 200, parts.media_type)


def _frame(instance: OpenInstance, number: int, is_decoded: bool) -> bytes | Refusal:
    """A frame, or what is wrong with this one. Raises Refusal where none can be had."""
    try:
        raw = instance.frame(number)
        return drawn(instance.served, "decode", raw, dict(instance.pixels)) if is_decoded else raw
    except FrameError as error:
        return lacking(error)
    except Undecodable as error:
        return Refusal(422, f"{UNDECODABLE}: {error}. It can be had as it is stored.")


RESOURCES: tuple[Resource, ...] = (
    Resource(
        "GET",
        "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}",
        "Retrieve Frames",
        "10.4",
        (OCTETS, *dict.fromkeys(IMAGE_TYPES.values())),
        retrieve,
        (Parameter("accept", "Media types that stand for the header Accept."),),
        statuses=(200, 404, 409, 410, 422),
    ),
)
