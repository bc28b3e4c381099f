"""A batch that is read into its staging while the one before it is published.

Does not belong here: the thread that reads (`context.RunContext`), what expanding and reading are (`expand`,
`validate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass


@dataclass(frozen=True)
class ReadAhead:
    """The reading of one batch ahead of its run.

    run_id: the run that it is read for; staged rows name it. result: objects and members, and objects by outcome;
    raises what expanding and reading raised.
    """

    run_id: str
    result: Future[tuple[int, Mapping[str, int]]]

    def end(self) -> None:
        """Waits until nothing is written into the batch's staging any more."""
        if not self.result.cancel():
            wait([self.result])
