"""The page of the plain viewer, and the list of what it asks besides DICOMweb.

Belongs here: addresses, the page itself. Does not belong here: what it shows (`images`, `header_lines`, `reports`).

Addresses are those of DICOMweb in short: `/view/{study}/{series}`, with a source before them where one is meant. The
page holds no data, so that nothing of a patient is in its title, in a cache or in a log.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import RedirectResponse, Response

from dicom_assets.schema.attributes import Level
from dicom_assets.serve.call import Call
from dicom_assets.serve.newest import newest
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.viewing.documents import document
from dicom_assets.serve.viewing.header_lines import header
from dicom_assets.serve.viewing.images import grey_values, images
from dicom_assets.serve.viewing.page_files import filled
from dicom_assets.serve.viewing.reports import report
from dicom_assets.serve.viewing.study_links import PLAIN, viewers_of

PLACE = "/view"

_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "connect-src 'self'",
            "frame-src 'self'",
            "object-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
}


async def page(call: Call) -> Response:
    """The viewer, on a series. Raises Refusal (404)."""
    await call.ask(lambda: _first_series(call))
    below = "" if call.source is None else f"/{call.source}"
    root = call.base.removesuffix(below).removesuffix(PLACE)
    others = [one for one in viewers_of(call.served.settings, root, **call.uids) if one[0] != PLAIN]
    values = {
        "root": "../" * (2 + below.count("/")),
        "source": below,
        "others": orjson.dumps(others).decode(),
        **call.uids,
    }
    return Response(filled("viewer.html", values), media_type="text/html", headers=_HEADERS)


async def first(call: Call) -> Response:
    """The way to the first series of a study that has images, or to its first one. Raises Refusal (404)."""
    series = await call.ask(lambda: _first_series(call))
    return RedirectResponse(f"{quote(call.uids['study'], safe='')}/{quote(series, safe='')}", 302)


def _first_series(call: Call) -> str:
    """The first series of those asked for, one with images before all others."""
    snapshot = call.snapshot()
    columns = ("SeriesInstanceUID", "SeriesNumber", "Rows")
    rows = newest(snapshot, Level.INSTANCE, call.uids, columns=columns)
    with snapshot.cursor() as connection:
        found: tuple[Any, ...] | None = connection.execute(
            f"""
            -- one row per series
            SELECT SeriesInstanceUID FROM {rows.sql} AS instance GROUP BY SeriesInstanceUID
            ORDER BY bool_or("Rows" IS NOT NULL) DESC, min(SeriesNumber), SeriesInstanceUID LIMIT 1
            """,
            [*rows.parameters],
        ).fetchone()
    if found is None:
        raise not_found([*call.uids][-1])
    return str(found[0])


_JSON = "application/json"

RESOURCES: tuple[Resource, ...] = (
    Resource("GET", "/{study}", "View Study", "", ("text/html",), first),
    Resource("GET", "/{study}/{series}/images", "View Images", "", (_JSON,), images),
    Resource("GET", "/{study}/{series}/{instance}/header", "View Header", "", (_JSON,), header),
    Resource("GET", "/{study}/{series}/{instance}/report", "View Report", "", (_JSON,), report),
    Resource("GET", "/{study}/{series}/{instance}/document", "View Document", "", ("application/pdf",), document),
    Resource("GET", "/{study}/{series}/{instance}/values/{frames}", "View Values", "", (_JSON,), grey_values),
    Resource("GET", "/{study}/{series}", "View Series", "", ("text/html",), page),
)
"""What stands below PLACE, and below a source there. These are no resources of DICOMweb."""
