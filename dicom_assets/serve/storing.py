"""Store objects into the landing zone of a source (STOW-RS, PS3.18 10.5).

Belongs here: the request and its answer. Does not belong here: boundaries (`body_parts`), what becomes of each object
(`intake`), where objects are put (`submissions`, `landing.deposits`), what they are in the end: that an ingest finds,
as of everything that lies there.

Each object comes into a file that no listing sees, is judged by the reader that will read it again, and gets its name
when it is whole. What a request has stored stays stored, however the request ends: who sends it again is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.serve.body_parts import BodyMalformed, BodyParts, Event, PartBegin, PartBytes, PartEnd
from dicom_assets.serve.call import Call
from dicom_assets.serve.current_objects import CurrentObjects
from dicom_assets.serve.intake import Intake
from dicom_assets.serve.media import DICOM, DICOM_JSON, JSON, RELATED, Offer, choose, ranges
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.receipts import Receipt
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.submissions import Submissions, source_of_request

TAKES = (f'{RELATED}; type="{DICOM}"', DICOM)
GIVES = (DICOM_JSON, JSON)
PARTS_MOST = 50_000
"""Objects in one request; the answer has an item for each."""
_AGAIN = {"Retry-After": "30"}


async def store(call: Call) -> Response:
    """Stores the objects of one request; the answer says of each what became of it. Raises Refusal."""
    settings = call.served.settings
    name = source_of_request(settings, call.source)
    if not call.may_store:
        raise Refusal(403, "Storing is not allowed to whoever asks here.")
    choose(ranges(call.request), [Offer(one) for one in GIVES])
    parts = _parts(call)
    submissions = call.served.part(Submissions)
    if submissions.under_way >= settings.serve.stores_at_once:
        raise Refusal(503, "Too much is being stored at the moment.", _AGAIN)
    submissions.under_way += 1
    try:
        return await _store(call, submissions, name, parts)
    finally:
        submissions.under_way -= 1


async def _store(call: Call, submissions: Submissions, name: str, parts: BodyParts | None) -> Response:
    settings = call.served.settings
    receipt = Receipt(call.base, call.uids.get("study"))
    try:
        goal = await submissions.work(lambda: submissions.goal(settings, name))
    except SourceUnavailable:
        raise Refusal(503, "The source cannot be written at the moment.", _AGAIN) from None
    snapshot = await submissions.work(call.snapshot)
    known = CurrentObjects(snapshot, goal.source, settings.archives)
    intake = Intake(goal, submissions, known, receipt, settings)
    ended: Refusal | None = None
    try:
        async for event in _events(call, parts):
            await intake.take(event)
            if intake.count > PARTS_MOST:
                raise Refusal(413, f"A request may hold {PARTS_MOST} objects.")
    except Refusal as error:  # of the body, too: it is too large, or stops coming
        ended = error
    except BodyMalformed as error:
        ended = Refusal(400, f"The body cannot be read: {error}.")
    except ClientDisconnect:
        ended = Refusal(400, "The body ends early.")
    finally:
        intake.close()
    if ended is not None and not receipt:
        raise ended
    if not receipt:
        raise Refusal(400, "The body holds no objects.")
    return _answer(receipt, ended)


def _answer(receipt: Receipt, ended: Refusal | None) -> Response:
    """What was stored is said in every answer; where the request was not read to its end, a Warning says why."""
    status = receipt.status if ended is None else int(ended.status)
    headers = dict(_AGAIN) if status == 503 else {}
    if ended is not None:
        headers |= ended.headers
        headers["Warning"] = f'299 dicom-assets "{ended.sentence}"'
    return Response(receipt.body(), status, headers, GIVES[0])


def _parts(call: Call) -> BodyParts | None:
    """What reads the body; None where it is one object. Raises Refusal for what cannot be taken or given."""
    headers = call.request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: send the body as it is.", {"Accept-Encoding": "identity"})
    kind = Message()
    kind["Content-Type"] = headers.get("content-type", "")
    if kind.get_content_type() == DICOM:
        return None
    if kind.get_content_type() != RELATED or str(kind.get_param("type", DICOM)).lower() != DICOM:
        raise Refusal(415, f"Content-Type: send {TAKES[0]}; boundary=…, or {DICOM}.")
    try:
        return BodyParts(str(kind.get_param("boundary", "")))
    except BodyMalformed as error:
        raise Refusal(400, f"Content-Type: {error}.") from None


async def _events(call: Call, parts: BodyParts | None) -> AsyncIterator[Event]:
    """The body as parts. Raises Refusal, BodyMalformed, ClientDisconnect."""
    if parts is None:
        yield PartBegin({"content-type": DICOM})
    async for chunk in call.request.stream():
        for event in [PartBytes(chunk)] if parts is None else parts.feed(chunk):
            yield event
    if parts is None:
        yield PartEnd()
    else:
        parts.finish()


def _resource(path: str) -> Resource:
    statuses = (200, 202, 400, 403, 405, 408, 409, 413, 415, 503)
    return Resource("POST", path, "Store Instances", "10.5", GIVES, store, takes=TAKES, statuses=statuses)


RESOURCES: tuple[Resource, ...] = (_resource("/studies"), _resource("/studies/{study}"))
