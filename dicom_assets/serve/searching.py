"""Search for studies, series and instances (QIDO-RS, PS3.18 10.6).

Belongs here: the resources, from a request to its answer. Does not belong here: what parameters mean (`search_query`,
`attribute_names`, `matching`), SQL (`search_plan`), what comes back (`answers`).
"""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from dicom_assets.schema.attributes import Level
from dicom_assets.serve.answers import Answer, as_csv, as_json
from dicom_assets.serve.attribute_names import Names
from dicom_assets.serve.call import Call
from dicom_assets.serve.media import DICOM_JSON, JSON, Offer, choose, ranges
from dicom_assets.serve.resource import Endpoint, Parameter, Resource
from dicom_assets.serve.search_plan import find
from dicom_assets.serve.search_query import DEFAULT_LIMIT, MOST, read

CSV = "text/csv"
_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(CSV))

_PARAMETERS = (
    Parameter(
        "{attribute}",
        "What must match, by keyword, tag (GGGGEEEE), a path into sequences with dots, or the name of a promoted "
        "column. Exact; with * and ? as wildcards but for DA, TM, DT, AS, UI and numbers; a-b, a- and -b for DA, TM "
        "and DT; UIDs and code strings as a list, of which any matches. Names without regard to case and accents.",
    ),
    Parameter("includefield", "Attributes to add to the answer, with commas, or `all` columns of the level."),
    Parameter(
        "fuzzymatching",
        "Names of persons match when every word of the key is the beginning of one of their words; wildcards count "
        "where there are some.",
        "boolean",
    ),
    Parameter("limit", f"Rows of the answer; {DEFAULT_LIMIT:,} without it, {MOST:,} at most.", "integer"),
    Parameter("offset", "Rows that are left out before the first.", "integer"),
    Parameter("accept", "Media types that stand for the header Accept."),
)


async def search(level: Level, call: Call) -> Response:
    """The studies, series or instances that match."""
    kind = choose(ranges(call.request), _OFFERS).offer.kind
    rows, more = await call.served.ask(partial(_found, level, call, kind))
    headers = {}
    if more:
        host = call.request.url.netloc
        headers["Warning"] = f"299 {host}: There are additional results that can be requested"
    return Response(rows, 200, headers, kind if kind != CSV else f"{CSV}; charset=utf-8")


def _found(level: Level, call: Call, kind: str) -> tuple[bytes, bool]:
    """The body of an answer, and whether there is more than it has."""
    snapshot = call.snapshot()
    names = Names(snapshot)
    path = {Level(name): uid for name, uid in call.uids.items()}
    query = read(level, path, call.request.query_params, names)
    answer = Answer(query, names, call.base)
    page = find(snapshot, query, answer.columns)
    rows = answer.elements(page)
    return (as_csv(rows) if kind == CSV else as_json(rows)), page.more


def _resource(path: str, level: Level, what: str) -> Resource:
    endpoint: Endpoint = partial(search, level)
    return Resource("GET", path, what, "10.6", (DICOM_JSON, JSON, CSV), endpoint, _PARAMETERS)


RESOURCES: tuple[Resource, ...] = (
    _resource("/studies", Level.STUDY, "Search for Studies"),
    _resource("/series", Level.SERIES, "Search for Series"),
    _resource("/studies/{study}/series", Level.SERIES, "Search for Series"),
    _resource("/instances", Level.INSTANCE, "Search for Instances"),
    _resource("/studies/{study}/instances", Level.INSTANCE, "Search for Instances"),
    _resource("/studies/{study}/series/{series}/instances", Level.INSTANCE, "Search for Instances"),
)
