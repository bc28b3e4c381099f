"""A chunk on its way through reading processes, and what becomes of it when a process ends at one of its objects.

Belongs here: dividing, reading alone, blame; no process is touched. Does not belong here: starting, watching and ending
processes (`engine`).

A process that ends in the middle of an object says little about that object: the system was short of memory, the
storage stood still for a minute, an earlier object left something behind. So nothing is blamed at once. The chunk is
divided at the object: what stands before it, the object alone, what comes after. Alone it is read again by a fresh
process, and only when it ends that one too is it blamed. A process that somebody else killed (SIGKILL, as the system
does when memory is short) tells nothing at all: the object is read alone LONE_TRIES times, the last time while nothing
else is read, and when all of these were killed, that is what is said of it (READER_KILLED), and not that it is bad.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

LONE_TRIES = 2
"""How often an object is read alone while the processes that read it are killed by somebody else."""
MOST_UNBLAMED = 3
"""Losses of a process on one chunk outside any object, after which the chunk fails."""
_BY_OTHERS = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
"""Signals that a parser does not get by its own doing."""


def reason_of(status: int | None) -> str:
    """What the end of a process that nobody here has ended says.

    status: its exit status, or the negative number of a signal; None when unknown.
    """
    return "READER_KILLED" if status is not None and -status in _BY_OTHERS else "PARSER_CRASH"


@dataclass(slots=True)
class Job:
    """A chunk on its way (see `engine.Chunk`).

    function: what reads it. is_lone: its one object has ended a process before. kills: how often that was read alone,
    and its process was killed by somebody else. unblamed: processes lost outside any object. answer: whether the
    function came to its end, and what it returned, or what was wrong. parts: what the chunk was divided into, which is
    answered instead.
    """

    function: Callable[..., Any]
    chunk: Any
    is_lone: bool = False
    kills: int = 0
    unblamed: int = 0
    answer: tuple[bool, Any] | None = None
    parts: list[Job] = field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        """Whether all of it is read."""
        return all(part.is_answered for part in self.parts) if self.parts else self.answer is not None

    @property
    def must_be_quiet(self) -> bool:
        """Whether nothing else is to be read meanwhile: the last try of an object whose processes were killed."""
        return self.is_lone and self.kills == LONE_TRIES - 1

    def answers(self) -> Iterator[tuple[bool, Any]]:
        """The answers of its parts, in their order."""
        for part in self.parts:
            yield from part.answers()
        if self.answer is not None:
            yield self.answer

    def lost(self, index: int | None, code: str) -> list[Job]:
        """Its process ended; what is to be read now. Nothing is when the job is answered by that.

        index: the object that was being read; None when it was none. code: PARSER_CRASH, PARSER_TIMEOUT, READER_KILLED.
        """
        name = None if index is None else self.chunk.objects[index].object_id
        if index is None or name in self.chunk.poison:
            self.unblamed += 1
            if self.unblamed < MOST_UNBLAMED:
                return [self]
            self.answer = (False, "a reading process ended outside any object, again and again")
            return []
        if not self.is_lone:
            return self._divide(index)
        self.kills += code == "READER_KILLED"
        if code != "READER_KILLED" or self.kills >= LONE_TRIES:
            self.chunk = replace(self.chunk, poison={**self.chunk.poison, name: code})
        return [self]

    def _divide(self, index: int) -> list[Job]:
        objects = self.chunk.objects
        slices = (objects[:index], objects[index : index + 1], objects[index + 1 :])
        self.parts = [
            Job(self.function, replace(self.chunk, objects=some), is_lone=number == 1)
            for number, some in enumerate(slices)
            if len(some)
        ]
        return self.parts
