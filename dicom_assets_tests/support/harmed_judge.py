"""The real judgement with a reader that some objects crash, hang or fill up.

It imports what a reading process has anyway, since each reading process imports it.
"""

import ctypes
import mmap
import os
import re
import signal
import time
from pathlib import Path

from dicom_assets.reading import judge, kinds
from dicom_assets.reading.kinds import read_header

CRASHES, HANGS, GROWS = "makes the reader crash", "makes the reader hang", "makes the reader grow"
KILLED, STALLED = "once somebody kills its reader", "once the storage stands still"
SLOW, LARGE = "is read in one second", "is read in 500 MB"
SHORT_OF_MEMORY = "short-of-memory"
"""What is read by processes that are killed, while a file of this name lies beside the landing folder."""


def is_first(mark):
    """Whether this is the first time; mark: a path."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def judge_harmed(chunk, beat):
    """The real judgement, with a reader that some objects crash, hang or fill up."""

    def harmed(source, *arguments):
        content = source.read(0, 4_096)
        for what in (KILLED, STALLED):
            if what.encode() in content and is_first(re.search(rb"mark=([^ \0]+)", content)[1]):
                if what is KILLED:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
        if CRASHES.encode() in content:
            ctypes.string_at(0)
        while HANGS.encode() in content:
            pass
        held = []
        while GROWS.encode() in content:
            held.append(bytearray(16 << 20))
        return read_header(source, *arguments)

    return _judge(chunk, beat, harmed)


def judge_slowly(chunk, beat):
    """The real judgement, with a reader that needs time, memory or peace for some objects."""

    def needing(source, *arguments):
        content = source.read(0, 4_096)
        if SLOW.encode() in content:
            time.sleep(1)
        if LARGE.encode() in content:
            held = bytearray(500 << 20)
            held[:: mmap.PAGESIZE] = bytes(len(range(0, len(held), mmap.PAGESIZE)))
            time.sleep(0.3)
        if SHORT_OF_MEMORY.encode() in content and Path(chunk.settings.root, "..", SHORT_OF_MEMORY).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read_header(source, *arguments)

    return _judge(chunk, beat, needing)


def _judge(chunk, beat, reader):
    kinds.read_header = reader
    try:
        return judge.judge_chunk(chunk, beat)
    finally:
        kinds.read_header = read_header
