"""Programs that a test starts beside itself.

Belongs here: ending them whatever the test found. Does not belong here: which program, and when it is ready.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_behind(process: subprocess.Popen[bytes], seconds: float = 30) -> Iterator[None]:
    """Ends a program behind the block: asks it to, and kills it when it has not followed after some seconds."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
