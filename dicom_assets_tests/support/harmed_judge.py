"""The real judgement with a reader that some objects crash, hang or fill up.

It imports what a reading process has anyway, since each reading process imports it.
"""

import ctypes
import os
import re
import signal
import time

from dicom_assets.reading import judge, kinds

CRASHES, HANGS, GROWS = "makes the reader crash", "makes the reader hang", "makes the reader grow"
KILLED, STALLED = "once somebody kills its reader", "once the storage stands still"


def is_first(mark):
    """Whether this is the first time; mark: a path."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def judge_harmed(chunk, beat):
    """The real judgement, with a reader that some objects crash, hang or fill up."""
    read_header = kinds.read_header

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

    kinds.read_header = harmed
    try:
        return judge.judge_chunk(chunk, beat)
    finally:
        kinds.read_header = read_header
