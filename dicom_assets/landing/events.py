"""Blob events in a storage queue: what a message says, and taking messages until their blobs are claimed.

Belongs here: the two schemas of Event Grid, the queue, its poison queue. Does not belong here: claiming (`claims`),
whether a source wants a blob (`azure`).

Delivery is at least once and in no order. A message is deleted only when the claim of its blob is durable, so a kill at
any point leaves either the message or the claim; a message that is delivered again names a blob that is claimed
already. Reading and deleting messages needs the role Storage Queue Data Message Processor, the poison queue Storage
Queue Data Contributor.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from dicom_assets.landing.azure import uris
from dicom_assets.landing.pace import Arrivals
from dicom_assets.landing.store import LISTING, SourceUnavailable
from dicom_assets.storage.azure import (
    EMULATOR,
    AddressError,
    Place,
    failures,
    parse,
    parse_folder,
    queue_client,
    reason,
    status_of,
)

if TYPE_CHECKING:
    from azure.storage.queue import QueueClient, QueueMessage

CREATED = "microsoft.storage.blobcreated"
WHOLE = frozenset(("putblob", "putblocklist", "copyblob", "putblobfromurl", "flushwithclose", "sftpcommit"))
"""What leaves a complete blob. CreateFile, which accounts with a hierarchical namespace send first, does not."""
PAGE = 32
RETRY_SECONDS = 10
"""When a message that could not be read is tried again."""
ROLE = "Storage Queue Data Message Processor"


class MessageUnreadable(Exception):
    """A message is no event; says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class BlobEvent:
    """A blob was written. etag without quotes; sequencer orders events of one blob, as text."""

    place: Place
    etag: str
    size: int
    time: datetime
    sequencer: str

    @property
    def uri(self) -> str:
        """Where the blob lies."""
        return uris(self.place, [self.place.path])[0]


def read_message(text: str) -> list[BlobEvent]:
    """The events of one message that announce a complete blob; none where it is about something else.

    text: JSON of an event in Event Grid's or CloudEvents' schema, or of an array of them; as it is, or in base64.
    Raises MessageUnreadable.
    """
    value = _json(text.strip())
    return [event for one in (value if isinstance(value, list) else [value]) if (event := _event(one)) is not None]


def _json(text: str) -> Any:
    if not text.startswith(("{", "[")):
        try:
            text = base64.b64decode(text, validate=True).decode("utf-8-sig")
        except (binascii.Error, ValueError):
            raise MessageUnreadable("it is neither JSON nor base64 of it") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MessageUnreadable("it is not JSON") from None


def _event(value: Any) -> BlobEvent | None:
    if not isinstance(value, dict):
        raise MessageUnreadable("it is not an object")
    kind = value.get("type", value.get("eventType"))
    if not isinstance(kind, str):
        raise MessageUnreadable("it has no type of event")
    if kind.lower() != CREATED:
        return None
    data = value.get("data")
    if not isinstance(data, dict):
        raise MessageUnreadable("it has no data")
    if _text(data, "api").lower() not in WHOLE:
        return None
    size = data.get("contentLength")
    if not isinstance(size, int) or size < 0:
        raise MessageUnreadable("contentLength is missing")
    try:
        place = parse(_text(data, "url"))
    except (AddressError, ValueError):
        raise MessageUnreadable("url names no blob") from None
    etag = _text(data, "eTag").strip('"')
    if not place.path or not etag:
        raise MessageUnreadable("url or eTag is empty")
    when = value.get("time", value.get("eventTime"))
    return BlobEvent(place, etag, size, _time(when), str(data.get("sequencer") or ""))


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise MessageUnreadable(f"{name} is missing")
    return value


def _time(text: Any) -> datetime:
    if not isinstance(text, str):
        raise MessageUnreadable("the time of the event is missing")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MessageUnreadable("the time of the event is not in ISO 8601 form") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def newest(events: Iterable[BlobEvent]) -> list[BlobEvent]:
    """One event for each blob, the last one by its sequencer: the others tell of bytes that are not there any more."""
    latest: dict[Place, BlobEvent] = {}
    for event in events:
        known = latest.get(event.place)
        if known is None or (event.sequencer, event.time) > (known.sequencer, known.time):
            latest[event.place] = event
    return list(latest.values())


def listing(events: Sequence[BlobEvent]) -> pa.RecordBatch:
    """Events as rows of a listing (schema LISTING), by URI so that folders stand together."""
    ordered = sorted(events, key=lambda event: event.place.path)
    rows = {
        "uri": [event.uri for event in ordered],
        "etag": [event.etag for event in ordered],
        "size": [event.size for event in ordered],
        "modified_at": [event.time for event in ordered],
    }
    return pa.RecordBatch.from_arrays([pa.array(rows[f.name], f.type) for f in LISTING], schema=LISTING)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was taken. events: those of complete blobs; fault: why it cannot be read, else None."""

    message: QueueMessage
    events: tuple[BlobEvent, ...]
    fault: str | None

    @property
    def tries(self) -> int:
        """How often it was delivered, this time counted."""
        return int(self.message.dequeue_count or 1)


class EventQueue:
    """One storage queue."""

    def __init__(self, queue: str, root: str) -> None:
        """queue: name or URL, as in the settings of a source; root: of that source, whose account a name belongs to."""
        self.account, self.name = _address(queue, root)
        self._client: QueueClient = queue_client(self.account, self.name)

    def arrivals(self) -> Arrivals:
        """How many messages are there, roughly: all are of complete blobs. Takes none. Raises SourceUnavailable."""
        try:
            return Arrivals(int(self._client.get_queue_properties().approximate_message_count or 0))
        except failures() as error:
            raise SourceUnavailable(f"Queue {self.name} cannot be read: {reason(error, ROLE)}.") from None

    def next_since(self) -> datetime | None:
        """When the message was sent that is next; None when there is none. Takes none. Raises SourceUnavailable."""
        try:
            found = [message.inserted_on for message in self._client.peek_messages(max_messages=1)]
        except failures() as error:
            raise SourceUnavailable(f"Queue {self.name} cannot be read: {reason(error, ROLE)}.") from None
        return min((one for one in found if one is not None), default=None)

    def poisoned(self) -> int | None:
        """How many messages are in the poison queue, roughly; None when there is no such queue.

        Raises SourceUnavailable.
        """
        try:
            found = queue_client(self.account, f"{self.name}-poison").get_queue_properties()
        except failures() as error:
            if status_of(error) == 404:
                return None
            raise SourceUnavailable(f"Queue {self.name}-poison cannot be read: {reason(error, ROLE)}.") from None
        return int(found.approximate_message_count or 0)

    def take(self, most: int, invisible_seconds: int) -> Iterator[Message]:
        """Messages until the queue is empty or `most` were taken; nobody else sees them for a while.

        Raises SourceUnavailable when the queue cannot be read.
        """
        try:
            pages = self._client.receive_messages(
                messages_per_page=min(PAGE, most), max_messages=most, visibility_timeout=invisible_seconds
            )
            for message in pages:
                try:
                    yield Message(message, tuple(read_message(str(message.content))), None)
                except MessageUnreadable as error:
                    yield Message(message, (), str(error))
        except failures() as error:
            raise SourceUnavailable(f"Queue {self.name} cannot be read: {reason(error, ROLE)}.") from None

    def delete(self, messages: Iterable[Message]) -> None:
        """Deletes messages. One that somebody else has taken meanwhile stays his. Raises SourceUnavailable."""
        for one in messages:
            try:
                self._client.delete_message(one.message)
            except failures() as error:
                if status_of(error) not in (400, 404):  # the receipt has expired, or the message is gone
                    raise SourceUnavailable(f"Queue {self.name} cannot be written: {reason(error, ROLE)}.") from None

    def put_back(self, message: Message) -> None:
        """Lets a message be delivered again soon. Raises SourceUnavailable."""
        try:
            self._client.update_message(message.message, visibility_timeout=RETRY_SECONDS)
        except failures() as error:
            if status_of(error) not in (400, 404):
                raise SourceUnavailable(f"Queue {self.name} cannot be written: {reason(error, ROLE)}.") from None

    def poison(self, message: Message) -> None:
        """Copies a message unchanged to `{queue}-poison`, made when it is missing. Raises SourceUnavailable."""
        target = queue_client(self.account, f"{self.name}-poison")
        try:
            try:
                target.send_message(message.message.content, time_to_live=-1)
            except failures() as error:
                if status_of(error) != 404:
                    raise
                target.create_queue()
                target.send_message(message.message.content, time_to_live=-1)
        except failures() as error:
            contributor = "Storage Queue Data Contributor"
            why = reason(error, contributor)
            raise SourceUnavailable(f"Queue {self.name}-poison cannot be written: {why}.") from None


def _address(queue: str, root: str) -> tuple[str, str]:
    """Account and name of a queue."""
    if "://" not in queue:
        return parse_folder(root).account, queue
    parts = urlsplit(queue)
    names = [part for part in parts.path.split("/") if part]
    if len(names) == 2 and names[0] == EMULATOR:
        return EMULATOR, names[1]
    return (parts.hostname or "").split(".")[0], names[-1]
