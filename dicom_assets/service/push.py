"""Storing files at a service by STOW-RS (PS3.18 10.5), with a report on each file.

Belongs here: which files are sent, the request, what the answer says of each. Does not belong here: HTTP (`client`),
printing (`cli`).

Each file is a request of its own: what the server says is then said of that file, and a file that it cannot take
stops no other. Files are streamed from disk.
"""

from __future__ import annotations

import csv
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from dicom_assets.dicom.signature import looks_like_dicom
from dicom_assets.printing import cell
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import value_of
from dicom_assets.service.errors import ServiceError, ServiceRefused, ServiceUnavailable, phrase

FAILED, STORED = "00081198", "00081199"
FAILURE_REASON, WARNING_REASON = "00081197", "00081196"
ALREADY_THERE = 45070
AT_ONCE = 4
"""Files under way at the same time: enough to hide a server's latency, few enough to be polite."""

REASONS: Mapping[int, str] = {
    272: "the server failed while it processed the instance",
    290: "the SOP class is not supported",
    43264: "the instance does not pass the server's validation",
    43265: "the Study Instance UID is not the one that was asked for",
    45070: "the server has the instance already",
    45071: "the instance is being stored by somebody else",
    49152: "the server cannot understand the instance",
    1: "stored, with warnings of the server's validation",
    45056: "stored, with values coerced",
    45062: "stored, with elements discarded",
    45063: "stored, although the data set does not match its SOP class",
}
"""Failure and warning reasons (PS3.18 I.2.2, and those of the DICOM service) in words."""
_ABOUT_THE_OBJECT = (200, 202, 204, 400, 406, 409, 413, 415, 422)
"""Statuses that say something of the object that was sent, and nothing of the service."""
_HEAD = 4_096
BLOCK = 2**18
"""Bytes of an object that are in memory at a time."""


class Outcome(StrEnum):
    """What became of a file."""

    STORED = "stored"
    WARNING = "warning"
    PRESENT = "present"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Pushed:
    """The report on one file. status: HTTP status, reason: DICOM's code; both None where there is none."""

    path: str
    outcome: Outcome
    status: int | None
    reason: int | None
    words: str


def push(client: ServiceClient, folder: Path, partition: str | None = None) -> Iterator[Pushed]:
    """Stores every DICOM file below a folder, in the order of their paths; one report each, also for other files.

    Raises ServiceUnreachable when nobody takes the connection, ServiceRefused when the credentials are not accepted,
    ServiceUnavailable when the service does not answer any more, each at once: no other file would fare better.
    """
    client.reach()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
        waiting = [pool.submit(push_file, client, path, partition) for path in files]
        try:
            for one in waiting:
                yield one.result()
        finally:
            for one in waiting:
                one.cancel()


def push_file(client: ServiceClient, path: Path, partition: str | None = None) -> Pushed:
    """Stores one file, in a data partition where one is named. Raises ServiceRefused, ServiceUnavailable."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
    except OSError as error:
        return Pushed(str(path), Outcome.FAILED, None, None, f"the file cannot be read: {error.strerror}")
    if not looks_like_dicom(head):
        return Pushed(str(path), Outcome.SKIPPED, None, None, "not DICOM")

    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    try:
        return store(client, str(path), blocks, size, partition)
    except ServiceRefused:
        raise
    except ServiceError as error:
        if isinstance(error, ServiceUnavailable) and error.status is None:
            raise
        return Pushed(str(path), Outcome.FAILED, error.status, None, error.reason or "the request failed")
    except OSError as error:
        return Pushed(str(path), Outcome.FAILED, None, None, f"the file cannot be read: {error.strerror}")


def store(
    client: ServiceClient, name: str, blocks: Callable[[], Iterator[bytes]], size: int, partition: str | None = None
) -> Pushed:
    """Stores one object: `size` bytes that `blocks` begins anew for each try; name: of it in the report.

    What the service says of the object is in the report; raises ServiceError when it says nothing of it, and what
    `blocks` raises.
    """
    boundary = secrets.token_hex(16)
    before = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    after = f"\r\n--{boundary}--\r\n".encode("ascii")

    def body() -> Iterator[bytes]:
        yield before
        yield from blocks()
        yield after

    reply = client.post(
        client.dicomweb("studies", partition),
        body,
        f'multipart/related; type="application/dicom"; boundary={boundary}',
        length=len(before) + size + len(after),
        what="storing a file",
        accepted=_ABOUT_THE_OBJECT,
    )
    answer = reply.json() if reply.status in (200, 202, 400, 409) and reply.body[:1] == b"{" else None
    return _report(name, reply.status, answer if isinstance(answer, dict) else {})


def _report(path: str, status: int, answer: Mapping[str, Any]) -> Pushed:
    """What the answer to one file says."""
    failed, stored = _item(answer, FAILED), _item(answer, STORED)
    if failed is not None:
        reason = _code(failed, FAILURE_REASON)
        words = REASONS.get(reason or 0, "the server does not say why")
        return Pushed(path, Outcome.PRESENT if reason == ALREADY_THERE else Outcome.FAILED, status, reason, words)
    if stored is not None:
        warning = _code(stored, WARNING_REASON)
        if warning:
            return Pushed(path, Outcome.WARNING, status, warning, REASONS.get(warning, "stored, with a warning"))
        return Pushed(path, Outcome.STORED, status, None, "")
    if status == 200:
        return Pushed(path, Outcome.STORED, status, None, "")
    return Pushed(path, Outcome.FAILED, status, None, f"the server answered {status}{phrase(status)}")


def _item(answer: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    found = value_of(answer, key)
    return found if isinstance(found, dict) else None


def _code(item: Mapping[str, Any], key: str) -> int | None:
    found = value_of(item, key)
    return int(found) if isinstance(found, (int, float)) else None


def write_report(path: Path, reports: Sequence[Pushed]) -> None:
    """The report as CSV, one line for each file. It holds paths: it belongs where the files are, not in a log."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Pushed)])
        writer.writerows([cell(value) for value in astuple(report)] for report in reports)
