"""Retrieve whole objects, as multipart or as a zip (WADO-RS, PS3.18 10.4).

Belongs here: the resources, which objects are there, the order of their bytes. Does not belong here: opening one
(`bytes_of`), WADO-URI (`wado_uri`).

Objects come one after the other, the very bytes that lie at the source. What is not there any more is known before the
first byte is sent, as far as that costs no request to a storage: then the others come, with status 206.
"""

from __future__ import annotations

import zipfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from functools import partial

from starlette.responses import Response

from dicom_assets.serve.bytes_of import OpenInstance, read, read_on
from dicom_assets.serve.call import Call
from dicom_assets.serve.media import DICOM, ZIP, Choice, Offer, choose, ranges
from dicom_assets.serve.places import Found, check, find_all, url_of
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.served import ServedLake
from dicom_assets.serve.streaming import BLOCK, BrokenOff, Parts, Stream, finish

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


async def retrieve(call: Call) -> Response:
    """The objects of a study, series or instance."""
    accepted = ranges(call.request)
    found = await call.ask_for_body(lambda: find_all(call, call.uids))
    return await answer(call, found, choose(accepted, offers(found)))


def offers(found: Sequence[Found]) -> list[Offer]:
    """The forms in which objects can be given: nothing is written in another transfer syntax."""
    syntaxes = {one.pixels["TransferSyntaxUID"] or "" for one in found}
    told = tuple(syntaxes) if len(syntaxes) == 1 else ("*",)
    return [Offer(DICOM, told, single=len(found) == 1, multipart=True), Offer(ZIP)]


async def answer(call: Call, found: Sequence[Found], choice: Choice) -> Response:
    """Objects in one form. Raises Refusal when none of them can be had."""
    there, refusal = await read(call, partial(_available, call.served, found))
    if not there:
        assert refusal is not None
        raise refusal
    first = OpenInstance(call.served, there[0])
    try:
        block = await read(call, lambda: first.open().block(0, BLOCK))
    except BaseException:
        await finish(first.close)
        raise
    status, headers = 200, {}
    if len(there) < len(found):
        status = 206
        headers["Warning"] = (
            f'299 {call.request.url.netloc} "{len(found) - len(there)} of {len(found)} objects cannot be had"'
        )
    if choice.offer.kind == ZIP:
        headers["Content-Disposition"] = 'attachment; filename="objects.zip"'
        return Stream(_zip(call.served, there, first, block), status, ZIP, headers)
    if not choice.is_multipart:
        return Stream(_blocks(call.served, first, block), status, _kind(first), headers, length=first.size)
    parts = Parts(DICOM)
    return Stream(_parts(call, there, parts, first, block), status, parts.media_type, headers)


def _kind(instance: OpenInstance) -> str:
    syntax = instance.pixels["TransferSyntaxUID"]
    return f"{DICOM}; transfer-syntax={syntax}" if syntax else DICOM


def _available(served: ServedLake, found: Sequence[Found]) -> tuple[list[Found], Refusal | None]:
    """Those that are there, and why the first of the others is not."""
    there: list[Found] = []
    refusal: Refusal | None = None
    answers: dict[object, Refusal | None] = {}
    for one in found:
        place = one.place and one.place._replace(member=None)
        if place is None or place not in answers:
            answers[place] = check(served, one)
        if answers[place] is None:
            there.append(one)
        else:
            refusal = refusal or answers[place]
    return there, refusal


async def _blocks(served: ServedLake, instance: OpenInstance, block: bytes) -> AsyncGenerator[bytes, None]:
    """The bytes of one object that is open, block the first of them; it is closed."""
    try:
        at = 0
        while block:
            yield block
            at += len(block)
            if at >= instance.size:
                return
            block = await read_on(served, partial(instance.block, at, BLOCK))
        raise BrokenOff
    except Refusal:
        raise BrokenOff from None
    finally:
        await _close(instance)


async def _close(instance: OpenInstance) -> None:
    if instance.is_open:
        await finish(instance.close)


async def _opened(served: ServedLake, found: Found) -> tuple[OpenInstance, bytes]:
    """An object with its first block. Raises BrokenOff."""
    instance = OpenInstance(served, found)
    try:
        return instance, await read_on(served, lambda: instance.open().block(0, BLOCK))
    except BaseException as error:
        await finish(instance.close)
        if isinstance(error, Refusal):
            raise BrokenOff from None
        raise


async def _parts(
    call: Call, found: Sequence[Found], parts: Parts, instance: OpenInstance, block: bytes
) -> AsyncGenerator[bytes, None]:
    served = call.served
    try:
        for at, one in enumerate(found):
            if at:
                instance, block = await _opened(served, one)
            yield parts.begin(_kind(instance), url_of(call.base, one.row))
            async with aclosing(_blocks(served, instance, block)) as pieces:
                async for piece in pieces:
                    yield piece
        yield parts.end
    finally:
        await _close(instance)


async def _zip(
    served: ServedLake, found: Sequence[Found], instance: OpenInstance, block: bytes
) -> AsyncGenerator[bytes, None]:
    """A zip of objects as they are; none of them is compressed, images hardly ever shrink."""
    sink = _Sink()
    archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED)  # type: ignore[call-overload]
    names = _names(found)
    try:
        for at, one in enumerate(found):
            if at:
                instance, block = await _opened(served, one)
            member = archive.open(zipfile.ZipInfo(next(names), _ZIP_TIME), "w", force_zip64=True)
            async with aclosing(_blocks(served, instance, block)) as pieces:
                async for piece in pieces:
                    member.write(piece)
                    yield sink.take()
            member.close()
        archive.close()
        yield sink.take()
    finally:
        await _close(instance)
        with suppress(ValueError):  # of a member that is still being written, when the client broke off
            archive.close()


def _names(found: Sequence[Found]) -> Iterator[str]:
    """Names of members, each once: series by number, objects by their UID where that is a fit name."""
    series: dict[str, int] = {}
    for number, one in enumerate(found, 1):
        folder = series.setdefault(one.row["SeriesInstanceUID"], len(series) + 1)
        uid = one.row["SOPInstanceUID"]
        is_fit = len(uid) <= 64 and all(word.isdigit() for word in uid.split("."))
        yield f"{folder:04d}/{uid if is_fit else f'{number:06d}'}.dcm"


class _Sink:
    """What zipfile writes to; it cannot go back."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _resource(path: str, what: str, retrieve: Callable[[Call], object]) -> Resource:
    return Resource(
        "GET",
        path,
        f"Retrieve {what}",
        "10.4",
        (DICOM, ZIP),
        retrieve,  # type: ignore[arg-type]
        (Parameter("accept", "Media types that stand for the header Accept."),),
        statuses=(200, 206, 404, 409, 410),
    )


RESOURCES: tuple[Resource, ...] = (
    _resource("/studies/{study}", "Study", retrieve),
    _resource("/studies/{study}/series/{series}", "Series", retrieve),
    _resource("/studies/{study}/series/{series}/instances/{instance}", "Instance", retrieve),
)
