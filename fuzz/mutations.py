"""Seeds and small faults for fuzzing: what a transfer, a disk or a careless program does to a DICOM file.

Belongs here: making broken objects. Does not belong here: judging what is read from them.
"""

from __future__ import annotations

import random
from functools import cache

from dicom_assets_tests.dicom.samples import generated, pydicom_files

_MARKS = (
    b"\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
    b"UN\0\0",
    b"SQ\0\0",
    b"\\",
    b"\0\0\0\0",
)
_HEADER = 6_000  # bytes at the beginning in which faults are made


@cache
def seeds(largest: int = 60_000) -> list[bytes]:
    """Pydicom's own odd files and the beginnings of generated ones."""
    found = [data for path in pydicom_files() if len(data := path.read_bytes()) < largest]
    others = generated(1, without=("rtstruct", "xa 50 MB", "us multi-frame"))
    return found + [data[:largest] for _, data in others]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to six faults: bytes changed, lost, added, repeated, cut off, or replaced by a delimiter."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(min(len(found), _HEADER) or 1)
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = rng.randbytes(1)
            case 1:
                del found[at : at + rng.choice((1, 2, 4, 8))]
            case 2:
                found[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 3:
                del found[at:]
            case 4:
                mark = rng.choice(_MARKS)
                found[at : at + len(mark)] = mark
            case _:
                other = rng.randrange(min(len(found), _HEADER) or 1)
                found[at:at] = found[other : other + rng.choice((8, 40))]
    return bytes(found)
