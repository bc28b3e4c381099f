"""Objects that crash, hang or fill up the process that reads them, and the functions that read them.

It imports next to nothing, since each reading process imports it.
"""

import ctypes
import gc
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Thing:
    object_id: str
    act: str = "read"


@dataclass(frozen=True)
class Things:
    objects: list[Thing]
    poison: dict[str, str] = field(default_factory=dict)


def read(chunk, beat):
    """Stands for the judge: returns (object_id, outcome) and misbehaves where an object says so."""
    outcomes = []
    for index, thing in enumerate(chunk.objects):
        beat(index)
        if thing.object_id in chunk.poison:
            outcomes.append((thing.object_id, chunk.poison[thing.object_id]))
            continue
        act = thing.act
        if act.startswith("once "):  # misbehaves in the first process alone
            _, act, mark = act.split(" ", 2)
            if seen_before(mark):
                act = "read"
        elif act.startswith("kill "):  # its process is killed so many times
            _, times, mark = act.split(" ", 2)
            act = "killed" if seen_before(mark) < int(times) else "read"
        match act:
            case "crash":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                while True:
                    pass
            case "hold":  # hangs with the interpreter's lock
                re.match(r"(a+)+$", "a" * 40 + "b")
            case "sleep":
                time.sleep(60)
            case "wait":
                time.sleep(1)
            case "grow":
                held = []
                while True:
                    held.append(bytearray(32 << 20))
            case "fault":
                raise ValueError("DOE^JANE")
            case "who":
                outcomes.append((thing.object_id, (os.getpid(), len(chunk.objects))))
                continue
            case "print":
                print("DOE^JANE")
        outcomes.append((thing.object_id, "read"))
    return outcomes


def seen_before(mark):
    """How often an object was begun before; one more from now on."""
    with open(mark, "a+") as file:
        file.seek(0)
        times = len(file.read())
        file.write("x")
    return times


def modules(chunk, beat):
    return sorted(set(sys.modules) & {"dagster", "duckdb", "deltalake"})


def readers_looked_through(chunk, beat):
    """Which of what reads the garbage collector goes through."""
    objects = {id(one) for one in gc.get_objects()}
    readers = ("dicom_assets.reading.judge", "pyarrow", "pydicom")
    return [name for name in readers if id(vars(sys.modules[name])) in objects]


def readers_imported(chunk, beat):
    return sorted(set(sys.modules) & {"dicom_assets.reading.judge", "pyarrow", "pydicom"})


def crash_at_the_end(chunk, beat):
    beat(len(chunk.objects))
    os._exit(1)


def large(chunk, beat):
    return b"x" * (8 << 20)


def chunk(number, size=4, **acts):
    return Things([Thing(f"{number}-{i}", acts.get(f"o{i}", "read")) for i in range(size)])
