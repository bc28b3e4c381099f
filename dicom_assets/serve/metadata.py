"""Retrieve metadata: stored headers, spliced (WADO-RS, PS3.18 10.4).

Belongs here: the resources, their order, ETags. Does not belong here: what becomes of a header (`splicing`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from functools import cached_property
from typing import Any

import orjson
import pyarrow as pa
from starlette.responses import Response

from dicom_assets.dicom.header import WHOLE
from dicom_assets.lake.quoting import named
from dicom_assets.serve.call import Call
from dicom_assets.serve.media import DICOM_JSON, JSON, Offer, choose, ranges
from dicom_assets.serve.places import METADATA, flat_source, listed, url_of
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.served import Snapshot
from dicom_assets.serve.splicing import Subject, pieces
from dicom_assets.serve.streaming import BrokenOff, Stream, finish

_OFFERS = (Offer(DICOM_JSON), Offer(JSON))
_NEEDED = ("batch_id", "object_id", "header", "header_form")
_COLUMNS = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "TransferSyntaxUID")
_ROWS = 128
"""Headers that are in memory at a time: about 2 MB; a row group, of at most some 32 MB, is besides."""


async def retrieve(call: Call) -> Response:
    """Metadata of a study, series or instance, one instance after the other."""
    choice = choose(ranges(call.request), _OFFERS)
    uids = call.uids
    snapshot, rows = await call.ask_for_body(lambda: _listed(call))
    headers = {"ETag": _etag(call.base, choice.offer.kind, rows)}
    if {headers["ETag"], "*"} & _etags(call.request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    spliced = _Spliced(call.base, snapshot, rows, uids)
    first = b"" if call.request.method == "HEAD" else await _first(call, spliced)
    return Stream(_pieces(call, spliced, first), 200, choice.offer.kind, headers)


def elements_of(call: Call) -> dict[str, Any]:
    """The header of the one instance of a call as it is answered, corrections put in. Raises Refusal. Blocks."""
    snapshot, rows = _listed(call)
    spliced = _Spliced(call.base, snapshot, rows, call.uids)
    try:
        found: list[dict[str, Any]] = orjson.loads(b"".join(iter(spliced.next, None)))
    finally:
        spliced.close()
    if not found:
        raise not_found("instance")
    return found[0]


async def _first(call: Call, spliced: _Spliced) -> bytes:
    """How the answer begins: what cannot be had is known before a status is sent. Raises Refusal."""
    try:
        return await call.ask_for_body(spliced.next) or b""
    except BaseException:
        await finish(spliced.close)
        raise


def _listed(call: Call) -> tuple[Snapshot, list[dict[str, Any]]]:
    snapshot = call.snapshot()
    return snapshot, listed(snapshot, call.uids, columns=METADATA)


def _etag(base: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Weak: the same as long as the same objects are current and answered under the same address."""
    digest = hashlib.blake2b(f"{base}\0{kind}\0".encode(), digest_size=16)
    for row in rows:
        corrected = row["corrections"] or ()
        digest.update(f"{row['batch_id']}/{row['object_id']}/{','.join(corrected)}\n".encode())
    return f'W/"{digest.hexdigest()}"'


def _etags(text: str) -> set[str]:
    """Those of If-None-Match, compared as weak ones (RFC 9110 13.1.2)."""
    tags = (one.strip() for one in text.split(","))
    return {f"W/{tag}" if tag.startswith('"') else tag for tag in tags}


async def _pieces(call: Call, spliced: _Spliced, first: bytes) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        while (piece := await call.ask_for_body(spliced.next)) is not None:
            yield piece
    except Refusal:
        raise BrokenOff from None
    finally:
        await finish(spliced.close)


class _Spliced:
    """The metadata of instances, read from the tables a block at a time, as one array of JSON."""

    def __init__(
        self, base: str, snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], uids: Mapping[str, str]
    ) -> None:
        self._base, self._snapshot, self._uids = base, snapshot, uids
        self._rows = {(row["batch_id"], row["object_id"]): row for row in rows}
        self._blocks = _blocks(snapshot, rows, uids, _NEEDED)
        self._separator = b"["
        self._is_whole = False

    def next(self) -> bytes | None:
        """Some elements of the array, None behind its end."""
        if self._is_whole:
            return None
        found: list[bytes | memoryview] = []
        block = next(self._blocks, None)
        if block is None:
            self._is_whole = True
            return (b"[" if self._separator == b"[" else b"") + b"]"
        names = zip(block["batch_id"].to_pylist(), block["object_id"].to_pylist(), strict=True)
        headers, forms = block["header"].cast(pa.binary()).to_pylist(), block["header_form"].to_pylist()
        for name, header, form in zip(names, headers, forms, strict=True):
            row = self._rows.get(name)
            if row is not None:
                told = None if form == WHOLE else self._pixels.get(name)
                found.append(self._separator)
                found += pieces(header, Subject(url_of(self._base, row), row, told))
                self._separator = b","
        return b"".join(found)

    @cached_property
    def _pixels(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What columns say of pixels, for headers that were stored without them, which few lakes have."""
        blocks = _blocks(self._snapshot, [*self._rows.values()], self._uids, ("batch_id", "object_id", *_COLUMNS))
        return {(one["batch_id"], one["object_id"]): one for block in blocks for one in block.to_pylist()}

    def close(self) -> None:
        """Ends the query."""
        self._blocks.close()


def _blocks(
    snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], uids: Mapping[str, str], columns: Sequence[str]
) -> Generator[pa.RecordBatch, None, None]:
    source = flat_source(snapshot, rows, uids, [*columns, "operation"])
    # Open for as long as the client takes what it gives, so it is no part of a single question.
    connection = snapshot.lake.cursor()
    try:
        # One row per object of these series, each version of it; in the order of the files.
        wanted = ", ".join(map(named, columns))
        yield from connection.sql(f"SELECT {wanted} FROM {source} WHERE operation = 'upsert'").to_arrow_reader(_ROWS)
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
