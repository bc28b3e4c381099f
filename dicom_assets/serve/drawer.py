"""A process that decodes and draws for the server: `python -m dicom_assets.serve.drawer`, jobs in, bytes out.

Belongs here: the child's side of `drawers`. Does not belong here: what is done with a frame (`decoding`, `drawing`).

Decoders are native code that reads what anybody may have sent. One that crashes, hangs or takes too much memory ends
this process, and nothing else.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any

from dicom_assets.serve.decoding import Undecodable, decoded

DONE, FAILED = 0, 1
HEAD = struct.Struct("<BQ")
"""Of an answer: DONE or FAILED, and the bytes that follow."""

_MEMORY_BYTES = 6 << 30

_NICE = 10
"""By how much drawing gives way to the server's own process, which answers searches meanwhile."""


def _draw(*arguments: Any) -> bytes:
    from dicom_assets.serve.drawing import draw  # here alone: the server's own process does without Pillow

    return draw(*arguments)


def _grey_values(*arguments: Any) -> bytes:
    from dicom_assets.serve.drawing import grey_values

    return grey_values(*arguments)


JOBS: dict[str, Callable[..., bytes]] = {"decode": decoded, "draw": _draw, "grey_values": _grey_values}
"""What can be asked for, by name."""


def work(jobs: IO[bytes], answers: IO[bytes]) -> None:
    """Does one job after the other until there are no more."""
    while True:
        try:
            name, arguments = pickle.load(jobs)
        except EOFError:
            return
        try:
            status, answer = DONE, JOBS[name](*arguments)
        except Undecodable as error:
            status, answer = FAILED, str(error).encode()
        except MemoryError:
            status, answer = FAILED, b"it takes more memory than may be used for it"
        answers.write(HEAD.pack(status, len(answer)))
        answers.write(answer)
        answers.flush()


def main() -> None:
    """The process."""
    warnings.simplefilter("ignore")  # they quote values
    if sys.platform == "linux":
        import resource

        os.nice(_NICE)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    work(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
