"""Forms that a browser posts: their fields, and that they come from a page of this server.

Belongs here: what every form needs. Does not belong here: single forms, who may send one.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs

from dicom_assets.catalogue.visit import Visit, server_of
from dicom_assets.serve.limits import NO_BODY
from dicom_assets.serve.problems import Refusal

KIND = "application/x-www-form-urlencoded"
MOST_FIELDS = 20


async def fields_of(visit: Visit) -> dict[str, str]:
    """The fields of a small form. Raises Refusal (403, 413, 415)."""
    _require_own_page(visit)
    if visit.request.headers.get("content-type", "").split(";")[0].strip().lower() != KIND:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"A form is needed ({KIND}).")
    body = bytearray()
    async for chunk in visit.request.stream():
        body += chunk
        if len(body) > NO_BODY:
            raise Refusal(413, f"A form may have {NO_BODY} bytes.", {"Connection": "close"})
    try:
        found = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refusal(413, f"A form may have {MOST_FIELDS} fields.") from None
    return {name: values[0] for name, values in found.items()}


def _require_own_page(visit: Visit) -> None:
    """Raises Refusal (403) for a form of another origin, those that may ask DICOMweb among them.

    A browser names the origin of every form that it posts; whoever names none is no browser, and has no cookie that
    somebody else could use.
    """
    origin = visit.request.headers.get("origin")
    own = "/".join(server_of(visit.request.scope, visit.basis).split("/")[:3])
    if origin is not None and origin != own:
        raise Refusal(403, "A form is taken from the pages of this server alone.")
