"""Fuzzes archives: no crash, no hang, bounded memory; each member is listed, or the archive is an error.

    python -m fuzz.archives [--seconds N] [--seed S]

What is listed is held against the other readers of directories that the blocking check has, since a batch pauses where
these differ. Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and
ends the process with a status that is not 0.
"""

from __future__ import annotations

import bz2
import lzma
import random
import re
import resource
import struct
import time
from collections import Counter
from functools import cache

import pyarrow as pa

from fuzz.running import instrumented, run

with instrumented(__name__):
    from dicom_assets.batch.checks.archive_checks import Incomparable, Member, same_archive
    from dicom_assets.batch.checks.reopening import bounded_file
    from dicom_assets.landing.archives import ArchiveError, members, open_members
    from dicom_assets.landing.store import ObjectError
    from dicom_assets.landing.zip_archive import ends_as_zip
    from dicom_assets.schema.codes import CODES
    from dicom_assets.settings import ArchiveLimits
    from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.landing.zip_forge import Record, central, deflate, forge
from dicom_assets_tests.landing.zip_writers import BEYOND, IMAGE, NOTE, RULES, TWO

_LIMITS = ArchiveLimits(max_entries=2_000, max_inflated_bytes=1 << 25, max_nested_bytes=1 << 23)
_SLOW_SECONDS = 5.0
_GROWTH = 512 << 10  # KiB: a dictionary of LZMA or xz may have 256 MiB
_MARKS = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08", b"PK\5\5")
_NUMBERS = (0, 1, 2, 4, 8, 16, 22, 46, 0x7FFF, 0xFFFF, 0xFFFFFFFF, 0x80000000, 8, 9, 12, 14, 93, 95)
_LARGEST = 20_000


@cache
def seeds() -> list[bytes]:
    """Archives of all writers, one in another, and every method of compression."""
    made = [*RULES.values(), *BEYOND.values(), forge(_every_method()), forge(_every_method(), end64=True)]
    inner = forge(TWO, prefix=b"MZ" + bytes(70))
    made += [
        forge([Record(b"in.zip", forge(TWO)), Record(b"sfx.exe", inner, method=0), *TWO]),
        forge([Record(b"big", bytes(1 << 20)), Record(b"n/", b"", method=0), Record(b"n", NOTE * 9)]),
        forge([Record(b"a", IMAGE, method=method, packed=NOTE[:99]) for method in (0, 8, 9, 12, 14, 20, 93, 95, 98)]),
        forge(TWO) + forge([Record(b"c", IMAGE)]),
        _with_a_record_before_its_directory(),
    ]
    return [one for one in made if len(one) <= _LARGEST]


def _with_a_record_before_its_directory() -> bytes:
    """Bytes of a member look like a record that ends where the directory begins."""
    looks_so = central(Record(b"fake"), 0)
    archive = bytearray(forge([Record(b"a", looks_so + bytes(2_000), method=0), *TWO], comment=b"PK\5\6" + bytes(18)))
    fake = archive.find(looks_so)
    reaching = archive.find(b"PK\1\2", fake + 4) - fake - len(looks_so)
    struct.pack_into("<H", archive, fake + 32, reaching)
    return bytes(archive)


def _every_method() -> list[Record]:
    packed = {
        0: IMAGE,
        8: deflate(IMAGE),
        9: deflate(IMAGE),
        12: bz2.compress(IMAGE),
        93: pa.compress(IMAGE, codec="zstd", asbytes=True),
        95: lzma.compress(IMAGE),
    }
    coder = {"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 16}
    raw = lzma.compress(IMAGE, lzma.FORMAT_RAW, filters=[coder])
    packed[14] = b"\x09\x04\x05\x00" + b"\x5d\x00\x00\x01\x00" + raw
    return [Record(b"%d" % method, IMAGE, method=method, packed=data) for method, data in packed.items()]


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` with one to six faults: bytes changed, lost, added, cut off, fields with other numbers, other archives."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(8):
            case 0:
                found[at : at + 1] = rng.randbytes(1)
            case 1:
                del found[at : at + rng.choice((1, 2, 4, 30))]
            case 2:
                found[at:at] = rng.choice((rng.randbytes(3), bytes(22), rng.choice(_MARKS)))
            case 3 if rng.random() < 0.3:
                del found[at:]
            case 4:
                other = rng.choice(others)
                found[at:at] = rng.choice((other, other[-rng.randrange(1, 200) :], other[: rng.randrange(1, 200)]))
            case 5 if rng.random() < 0.5:
                found += rng.choice(others)[-rng.randrange(1, 99) :]
            case _:
                _field(found, rng)
    return bytes(found[: 3 * _LARGEST])


def _field(found: bytearray, rng: random.Random) -> None:
    """Writes a number into a field of some record."""
    records = [match.start() for match in re.finditer(rb"PK[\x01-\x07][\x02-\x08]", found)]
    if not records:
        return
    form = rng.choice(["<H", "<H", "<I", "<I", "<Q"])
    at = rng.choice(records) + rng.randrange(4, 46)
    number = rng.choice((*_NUMBERS, len(found), rng.choice(records), rng.randrange(len(found) + 1)))
    if at + struct.calcsize(form) <= len(found):
        struct.pack_into(form, found, at, number & (1 << 8 * struct.calcsize(form)) - 1)


class Judge:
    """Judges one archive after the other."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.outcomes: Counter[str] = Counter()
        self._least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __call__(self, data: bytes) -> None:
        """Raises AssertionError, or whatever reading should not have raised."""
        started = time.process_time()
        source = BytesSource(data)
        ends_as_zip(source, data[:4])
        try:
            found = list(members(source, _LIMITS))
        except ArchiveError as error:
            assert error.code in CODES
            self.outcomes[error.code] += 1
            return
        assert len({one.name for one in found}) == len(found), "a name stands twice"
        assert all(one.code is None or one.code in CODES for one in found)
        self.outcomes.update(one.code or "readable" for one in found)
        for one, (_, opened) in zip(found, open_members(source, [one.entry for one in found], _LIMITS), strict=True):
            try:
                if isinstance(opened, ObjectError):
                    raise opened
                assert len(opened.read(0, min(opened.size, 1 << 22))) == min(one.size, 1 << 22)
                opened.verify()
            except ObjectError as error:
                assert error.code in CODES and error.code != "READ_FAILED", error.code
        self.outcomes[_compared(source, found)] += 1
        assert time.process_time() - started < _SLOW_SECONDS, "slow"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._least < _GROWTH, "large"


def _compared(source: BytesSource, found: list) -> str:  # type: ignore[type-arg]
    staged: dict[tuple[int, ...], list[Member]] = {}
    for one in found:
        member = Member(one.entry[-1], one.size, one.name, one.code == "ARCHIVE_EXPANDED")
        staged.setdefault(one.entry[:-1], []).append(member)
    try:
        same = same_archive(bounded_file(source, 1 << 30), staged, (), "", [1 << 23])
    except (Incomparable, OSError):
        return "not compared"
    assert same, "other readers list other members"
    return "compared"


def made(rng: random.Random) -> bytes:
    """A seed with faults."""
    return mutated(rng.choice(seeds()), seeds(), rng)


if __name__ == "__main__":
    judge = Judge()
    run(
        __doc__ or "",
        judge,
        made,
        lambda data, rng: mutated(data, seeds(), rng),
        most=3 * _LARGEST,
        seeds=seeds(),
        outcomes=judge.outcomes,
    )
