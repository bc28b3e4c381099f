"""A PDF that came as a DICOM object (PS3.3 A.45), as a browser shows it.

Belongs here: its bytes with their type. Does not belong here: bulk data in general (`serve.bulk`).
"""

from __future__ import annotations

from functools import partial

import orjson
from starlette.responses import Response

from dicom_assets.dicom.references import NoReference, parse
from dicom_assets.serve.bytes_of import OpenInstance, header_of, read
from dicom_assets.serve.call import Call
from dicom_assets.serve.places import Found, find
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.streaming import finish

MOST_BYTES = 64 << 20

_DOCUMENT = "00420011"
_NONE = "This object holds no PDF that can be shown here."

_HEADERS = {
    "Content-Disposition": 'inline; filename="document.pdf"',
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""A browser's own viewer shows it; a page of this server may hold it in a frame."""


async def document(call: Call) -> Response:
    """The PDF of an instance. Raises Refusal (404, 410, 413)."""
    found, header = await call.ask(lambda: _found(call))
    instance = OpenInstance(call.served, found)
    try:
        pdf = await read(call, partial(_read, instance, header))
    finally:
        await finish(instance.close)
    return Response(pdf, media_type="application/pdf", headers=_HEADERS)


def _found(call: Call) -> tuple[Found, bytes]:
    found = find(call, call.uids)
    return found, header_of(call.snapshot(), found)


def _read(instance: OpenInstance, header: bytes) -> bytes:
    element = orjson.loads(header).get(_DOCUMENT, {})
    instance.open()
    try:
        reference = parse(element["BulkDataURI"])
    except (KeyError, NoReference):
        raise Refusal(404, _NONE) from None
    if reference.length > MOST_BYTES:
        raise Refusal(413, f"The document has more than {MOST_BYTES >> 20} MB. Retrieve the object by DICOMweb.")
    raw = instance.value(reference.offset, reference.length)
    if b"%PDF-" not in raw[:1024]:  # where a reader looks for it
        raise Refusal(404, _NONE)
    return raw
