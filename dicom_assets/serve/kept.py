"""What answers keep of immutable things that they have looked up, the oldest going first when it becomes too much.

Belongs here: a bounded memory that threads share. Does not belong here: what is kept, and for how long it is true:
whoever keeps something says so by its key.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by key, up to a weight."""

    def __init__(self, most: int) -> None:
        """most: weight of all values, about their bytes."""
        self._most = most
        self._weight = 0
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        """The value, if it is kept."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def keep(self, key: Hashable, value: V, weight: int) -> None:
        """Keeps a value; one that is heavier than a quarter of what may be kept is not."""
        if weight > self._most // 4:
            return
        with self._lock:
            before = self._values.pop(key, None)
            self._values[key] = value, weight
            self._weight += weight - (before[1] if before else 0)
            while self._weight > self._most:
                _, (_, gone) = self._values.popitem(last=False)
                self._weight -= gone
