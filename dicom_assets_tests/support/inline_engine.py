"""Reading in this process: a quick stand-in for reading processes, for tests that are about something else.

It has no limits on time or memory, and what crashes it crashes the test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from dicom_assets.reading.engine import Beat, Result


class InlineEngine:
    """A ReadingEngine without processes."""

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order."""
        for chunk in chunks:
            yield function(chunk, _no_beat)


def _no_beat(index: int) -> None:
    return
