"""Logs of lines of JSON, which several processes write into one file.

Belongs here: how a line gets into a file. Does not belong here: what it says (`observation`, `audit_log`).
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from dicom_assets.sections import SettingsError

PENDING = 10_000
"""Lines that wait for a file that cannot be written."""

_PRIVATE = 0o600


class LineLog:
    """A file that lines are added to, each by one call of the system, so that lines of several processes never mix.

    Where the file has been moved away, the next line begins a new one, so that any tool may rotate it. Lines that
    cannot be written wait for the next one.
    """

    def __init__(self, place: str) -> None:
        """place: a file, `-` for stderr, an empty text for nowhere. Raises SettingsError where it cannot be written."""
        self._place = place
        self._file: int | None = None
        self._inode: tuple[int, int] | None = None
        self._pending: deque[bytes] = deque(maxlen=PENDING)
        if place not in ("", "-"):
            try:
                self._open()
            except OSError as error:
                raise SettingsError(f"The log {place} cannot be written: {error.strerror}.") from None

    @property
    def is_on(self) -> bool:
        """Whether lines go anywhere."""
        return self._place != ""

    @property
    def is_waiting(self) -> bool:
        """Whether lines wait for being written."""
        return bool(self._pending)

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a line. Raises OSError when it has to wait."""
        if self._place == "-":
            print(orjson.dumps(record).decode(), file=sys.stderr, flush=True)
        elif self._place:
            self._pending.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            self.catch_up()

    def catch_up(self) -> None:
        """Writes what waits. Raises OSError when it has to go on waiting."""
        while self._pending:
            self._open()
            assert self._file is not None
            line = self._pending.popleft()
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._pending.appendleft(line if line.startswith(b"\n") else b"\n" + line)  # behind a torn one
                raise

    def _open(self) -> None:
        try:
            there = Path(self._place).stat()
            inode = (there.st_dev, there.st_ino)
        except FileNotFoundError:
            inode = None
        if self._file is None or inode is None or inode != self._inode:
            self.close()
            self._file = os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
            opened = os.fstat(self._file)
            self._inode = (opened.st_dev, opened.st_ino)

    def close(self) -> None:
        """Closes the file; the next line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
