"""What becomes of each object that comes to be stored: spooled, judged, put, and noted in the receipt.

Belongs here: the order of these, and what happens when one fails. Does not belong here: boundaries (`body_parts`), the
answer (`receipts`), where and how objects are put (`submissions`).
"""

from __future__ import annotations

import errno
import time
from datetime import UTC, datetime

from dicom_assets import faults
from dicom_assets.dicom.header import Header, NotDicom, Unreadable, read_header
from dicom_assets.landing.deposits import Deposit, Spool
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.serve.body_parts import Event, PartBegin, PartBytes
from dicom_assets.serve.current_objects import Current, CurrentObjects
from dicom_assets.serve.exceptions import say
from dicom_assets.serve.receipts import Failure, Receipt
from dicom_assets.serve.submissions import Goal, Identity, Put, Submissions, identity_digest
from dicom_assets.settings import Settings

_BINARY = {"", "binary", "8bit", "7bit"}
_TYPES = {"", "application/dicom", "application/octet-stream"}
_PIECE = 2**20
"""Bytes that are written at once: each time costs a thread."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Intake:
    """The objects of one request, one after the other."""

    def __init__(
        self, goal: Goal, submissions: Submissions, known: CurrentObjects, receipt: Receipt, settings: Settings
    ) -> None:
        """goal: where they are put; known: what the lake has; receipt: gets an item for each."""
        self._goal, self._submissions, self._known = goal, submissions, known
        self._receipt, self._reading = receipt, settings.reading
        self._most = settings.serve.object_bytes
        self._spool: Spool | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._failure: Failure | None = None
        self._too_large = False
        self._unavailable = False
        self.count = 0

    async def take(self, event: Event) -> None:
        """Goes on with the object that is coming in."""
        if isinstance(event, PartBegin):
            self._begin(event)
        elif isinstance(event, PartBytes):
            if self._failure is None:
                self._waiting.append(event.data)
                self._waiting_bytes += len(event.data)
                if self._waiting_bytes >= _PIECE:
                    await self._submissions.work(self._write)
        else:
            await self._submissions.work(self._end)

    def close(self) -> None:
        """Drops what is not whole."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _begin(self, part: PartBegin) -> None:
        self.count += 1
        kind = part.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = part.headers.get("content-transfer-encoding", "").strip().lower()
        self._failure = None if kind in _TYPES and encoding in _BINARY else Failure.CANNOT_UNDERSTAND
        if self._unavailable:
            self._failure = Failure.OUT_OF_RESOURCES
        self._waiting, self._waiting_bytes, self._too_large = [], 0, False

    def _write(self) -> None:
        """Writes what waits. What cannot be written fails this object, and leaves nothing of it."""
        if self._failure is not None:
            return
        data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        try:
            if self._spool is None:
                self._spool = self._goal.depot.spool()
            if self._spool.size + len(data) > self._most:
                self._fail(Failure.OUT_OF_RESOURCES)
                self._too_large = True
                return
            self._spool.write(data)
        except SourceUnavailable:
            self._unavailable = True
            self._fail(Failure.OUT_OF_RESOURCES)
        except OSError as error:
            # A smaller object may fit; a disk that fails for another reason fails for all of them.
            self._unavailable = error.errno not in _FULL
            self._fail(Failure.OUT_OF_RESOURCES)

    def _fail(self, failure: Failure) -> None:
        self._failure = failure
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _end(self) -> None:
        """The object is whole: judged, and put if it is accepted."""
        self._write()
        spool, self._spool = self._spool, None
        if spool is None or self._failure is not None:
            self._receipt.failed(self._failure or Failure.CANNOT_UNDERSTAND, too_large=self._too_large)
            return
        try:
            self._judge(spool)
        finally:
            spool.close()

    def _judge(self, spool: Spool) -> None:
        header, failure = self._read(spool)
        columns = {} if header is None else header.columns
        sop_class, instance = columns.get("SOPClassUID"), columns.get("SOPInstanceUID")
        identity: Identity = (columns.get("StudyInstanceUID", ""), columns.get("SeriesInstanceUID", ""), instance or "")
        if failure is None and not (all(identity) and self._receipt.takes(identity[0])):
            failure = Failure.IDENTITY
        if failure is not None:
            self._receipt.failed(failure, sop_class, instance)
            return
        try:
            replaces = self._put(spool, identity)
        except SourceUnavailable:
            self._unavailable = True
            self._receipt.failed(Failure.OUT_OF_RESOURCES, sop_class, instance)
            return
        self._receipt.stored(sop_class, *identity, replaces=replaces)

    def _read(self, spool: Spool) -> tuple[Header | None, Failure | None]:
        """The header, by the reader of an ingest, which will say the same of these bytes."""
        try:
            header = read_header(spool, self._reading)
        except Unreadable as error:
            return None, Failure.IDENTITY if error.code == "MISSING_IDENTITY" else Failure.CANNOT_UNDERSTAND
        except NotDicom:
            return None, Failure.CANNOT_UNDERSTAND
        except (MemoryError, OSError):
            return None, Failure.PROCESSING
        except Exception as error:  # noqa: BLE001 - this object fails, whatever its bytes make a parser do; others may not
            faults.show(error)
            say(f"dicom-assets: an object that was sent was not stored. {faults.sentence(error)}")
            return None, Failure.PROCESSING
        return header, Failure.CANNOT_UNDERSTAND if header.media_directory else None

    def _put(self, spool: Spool, identity: Identity) -> bool:
        """Puts an object unless the newest one of its UIDs has the same bytes; whether it replaces another one.

        The newest one is what this process put last, until the lake has something newer.
        """
        key = identity_digest(self._goal.source, identity)
        current, last = self._known.get(identity), self._submissions.last(key)
        if last is not None and (current is None or current.version_at is None or last.deposit.at > current.version_at):
            if last.content == spool.digest:
                return False
            replaces = True
        elif current is not None:
            same = self._known.is_same(current, spool, self._goal.store)
            if same:
                return False
            replaces = same is not None
        else:  # another process may have put one, or this one before it was started anew
            replaces = self._known.is_all and self._goal.has_family(identity)
        deposit, there = self._put_under_new_name(spool, identity, current, last)
        self._submissions.remember(key, Put(spool.digest, deposit))
        return replaces and not there

    def _let_time_pass(self, newest: datetime) -> None:
        """Which one of two versions is newer the lake tells by their times, and Azure's have whole seconds."""
        tick = self._goal.depot.tick_seconds
        time.sleep(min(max((newest - datetime.now(UTC)).total_seconds() + tick, 0), tick))

    def _put_under_new_name(
        self, spool: Spool, identity: Identity, current: Current | None, last: Put | None
    ) -> tuple[Deposit, bool]:
        """Puts an object; where, and whether it was there already.

        The same bytes have the same name. Where something has it that is older than what is known of these UIDs, it is
        a version that was replaced since, and the same bytes are a new one. Otherwise another process has put it, or
        this one before it was started anew, and the lake does not have it yet.
        """
        newest = [] if current is None or current.version_at is None else [current.version_at]
        newest += [] if last is None else [last.deposit.at]
        if newest:
            self._let_time_pass(max(newest))
        number = 0
        while True:
            path, deposit = self._goal.put(spool, identity, number)
            if deposit is not None:
                return deposit, False
            found = self._goal.depot.find(path)
            if found is not None and all(found.at > at for at in newest):
                return found, True
            number += 1
