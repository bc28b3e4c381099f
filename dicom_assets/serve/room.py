"""Memory that answers under way share: who comes when it is taken is told to come back.

Belongs here: counting bytes. Does not belong here: what they are of.
"""

from __future__ import annotations

import threading

from dicom_assets.serve.problems import Refusal

HEADERS_BYTES = 192 << 20
"""Headers that answers under way hold, for each process; what is made of them, and is on its way, takes as much again.
One of a hundred megabytes is a common one's ten thousandfold."""


class HeaderRoom:
    """Bytes of headers that are held. Threads share it."""

    def __init__(self, most: int = HEADERS_BYTES) -> None:
        """most: bytes in all; a single answer may hold more, when nothing else does."""
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    def change(self, before: int, now: int) -> None:
        """An answer that held some bytes holds others now. Raises Refusal (503) to one that held none."""
        with self._lock:
            others = self._taken - before
            if not before and others and others + now > self._most:
                raise Refusal(503, "More memory is needed than answers may take at the moment.", {"Retry-After": "5"})
            self._taken = others + now
