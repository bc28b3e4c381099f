"""Retrieve metadata: stored headers, spliced (WADO-RS, PS3.18 10.4).

Belongs here: the resources, their order, ETags. Does not belong here: what becomes of a header (`splicing`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import orjson
from starlette.responses import Response

from dicom_assets.dicom.header import WHOLE
from dicom_assets.lake.quoting import named
from dicom_assets.serve.addresses import address, instance_of
from dicom_assets.serve.call import Call
from dicom_assets.serve.media import DICOM_JSON, JSON, Offer, choose, ranges
from dicom_assets.serve.places import flat_source
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.served import Snapshot
from dicom_assets.serve.splicing import Subject, pieces
from dicom_assets.serve.streaming import BrokenOff, Stream, finish
from dicom_assets.serve.study_rows import Name, Rows, rows_of

_OFFERS = (Offer(DICOM_JSON), Offer(JSON))
_NAME = ("batch_id", "object_id")
_COLUMNS = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "TransferSyntaxUID")

Block = list[tuple[Any, ...]]
"""Rows, with the columns that were asked for."""

_ROWS = 128
"""Headers that are in memory at a time: about 2 MB; a row group, of at most some 32 MB, is besides."""
_PIECE = 1 << 18
"""Bytes of an answer that are sent at a time: of larger pieces each copy is memory that the system makes anew."""


async def retrieve(call: Call) -> Response:
    """Metadata of a study, series or instance, one instance after the other."""
    choice = choose(ranges(call.request), _OFFERS)
    known = _etags(call.request.headers.get("if-none-match", ""))
    answer = _Answer(call, choice.offer.kind)

    def begin() -> list[bytes] | None:
        """What the body begins with, None where the head says everything."""
        answer.look_up()
        return answer.next() if call.request.method == "GET" and not {answer.etag, "*"} & known else None

    try:
        first = await call.ask_for_body(begin)  # what cannot be had is known before a status is sent
    except BaseException:
        await finish(answer.close)
        raise
    headers = {"ETag": answer.etag}
    if {answer.etag, "*"} & known:
        return Response(status_code=304, headers=headers)
    return Stream(_pieces(call, answer, first), 200, choice.offer.kind, headers)


def elements_of(call: Call) -> dict[str, Any]:
    """The header of the one instance of a call as it is answered, corrections put in. Raises Refusal. Blocks."""
    answer = _Answer(call, DICOM_JSON)
    try:
        answer.look_up()
        found: list[dict[str, Any]] = orjson.loads(b"".join(chain.from_iterable(iter(answer.next, None))))
    finally:
        answer.close()
    if not found:
        raise not_found("instance")
    return found[0]


def _etags(text: str) -> set[str]:
    """Those of If-None-Match, compared as weak ones (RFC 9110 13.1.2)."""
    tags = (one.strip() for one in text.split(","))
    return {f"W/{tag}" if tag.startswith('"') else tag for tag in tags}


async def _pieces(call: Call, answer: _Answer, first: list[bytes] | None) -> AsyncGenerator[bytes, None]:
    try:
        some = first
        while some is not None:
            for piece in some:
                yield piece
            some = await call.ask_for_body(answer.next) if not answer.is_whole else None
    except Refusal:
        raise BrokenOff from None
    finally:
        await finish(answer.close)


class _Answer:
    """The metadata of the instances of a call, read from the tables a block at a time, as one array of JSON.

    is_whole: everything was given. etag: weak, the same as long as the same objects are current and answered under the
    same address.
    """

    def __init__(self, call: Call, kind: str) -> None:
        """kind: the media type. Nothing is asked yet."""
        self._call, self._kind = call, kind
        self._blocks: Generator[Block, None, None] | None = None
        self._series: dict[str, str] = {}
        self._separator = b"["
        self.is_whole = False
        self.etag = ""

    def look_up(self) -> None:
        """Which instances there are. Raises Refusal. Blocks."""
        self._snapshot = self._call.snapshot()
        self._rows = rows_of(self._call, self._snapshot)
        self._left = dict(self._rows)
        self.etag = _etag(self._call.base, self._kind, self._rows)
        self._blocks = self._read((*_NAME, "header", "header_form"))

    def next(self) -> list[bytes] | None:
        """Some elements of the array, None behind its end. Blocks."""
        if self.is_whole or self._blocks is None:
            return None
        block = next(self._blocks, None)
        given = [] if block is None else [*self._spliced(block)]
        if block is None or not self._left:
            self.is_whole = True
            self._blocks.close()
            given.append(b"[]" if self._separator == b"[" else b"]")
        return given

    def _spliced(self, block: Block) -> Iterator[bytes]:
        """The elements of a block."""
        found: list[bytes | memoryview] = []
        size = 0
        for batch, name, header, form in block:
            row = self._left.pop((batch, name), None)
            if row is None:
                continue
            told = None if form == WHOLE else self._pixels.get((batch, name))
            found.append(self._separator)
            found += pieces(header, Subject(self._url(row), row, told))
            self._separator = b","
            size += len(header)
            if size >= _PIECE:
                yield b"".join(found)
                found, size = [], 0
        yield b"".join(found)

    def _url(self, row: Mapping[str, Any]) -> str:
        """The address of an instance, of which those of a series have all but the end in common."""
        uid = row["SeriesInstanceUID"]
        series = self._series.get(uid)
        if series is None:
            series = self._series[uid] = address(self._call.base, (row["StudyInstanceUID"], uid))
        return instance_of(series, row["SOPInstanceUID"])

    @cached_property
    def _pixels(self) -> dict[Name, dict[str, Any]]:
        """What columns say of pixels, for headers that were stored without them, which few lakes have."""
        blocks = self._read((*_NAME, *_COLUMNS))
        return {
            (batch, name): dict(zip(_COLUMNS, told, strict=True)) for block in blocks for batch, name, *told in block
        }

    def _read(self, columns: Sequence[str]) -> Generator[Block, None, None]:
        return _blocks(self._snapshot, [*self._rows.values()], self._call.uids, columns)

    def close(self) -> None:
        """Ends the query."""
        if self._blocks is not None:
            self._blocks.close()


def _etag(base: str, kind: str, rows: Rows) -> str:
    said = (f"{batch}/{name}/{','.join(row['corrections'] or ())}\n" for (batch, name), row in rows.items())
    digest = hashlib.blake2b(f"{base}\0{kind}\0{''.join(sorted(said))}".encode(), digest_size=16)
    return f'W/"{digest.hexdigest()}"'


def _blocks(
    snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], uids: Mapping[str, str], columns: Sequence[str]
) -> Generator[Block, None, None]:
    source = flat_source(snapshot, rows, uids, [*columns, "operation"])
    # As bytes they are copied once: as text they would be decoded, and by way of Arrow copied twice.
    wanted = ", ".join("encode(header)" if one == "header" else named(one) for one in columns)
    # Open for as long as the client takes what it gives, so it is no part of a single question.
    connection = snapshot.lake.cursor()
    try:
        # One row per object of these series, each version of it; in the order of the files.
        connection.execute(f"SELECT {wanted} FROM {source} WHERE operation = 'upsert'")
        while block := connection.fetchmany(_ROWS):
            yield block
    finally:
        connection.close()


RESOURCES: tuple[Resource, ...] = tuple(
    Resource(
        "GET",
        path + "/metadata",
        "Retrieve Metadata",
        "10.4",
        (DICOM_JSON, JSON),
        retrieve,
        (Parameter("accept", "Media types that stand for the header Accept."),),
        statuses=(200, 304, 404),
    )
    for path in (
        "/studies/{study}",
        "/studies/{study}/series/{series}",
        "/studies/{study}/series/{series}/instances/{instance}",
    )
)
