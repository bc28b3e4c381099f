"""Archives as programs write them: Info-ZIP, 7-Zip and bsdtar themselves, .NET, Apple and others by their rules.

Belongs here: making them. Does not belong here: what must be read from them.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dicom_assets_tests.landing.zip_forge import DESCRIPTORS, Record, central, ending, forge, local
from dicom_assets_tests.support.dicoms import dicom

IMAGE = dicom()
NOTE = b"no image\n" * 300
TREE = {"ST/IM 1.dcm": IMAGE, "ST/deep/IM2.dcm": dicom(1, 1, 2), "ST/Größe.txt": NOTE, "ST/nothing": b""}
FOLDERS = ("ST/empty",)
APT = {"zip": "zip", "7zz": "7zip", "bsdtar": "libarchive-tools"}
"""Debian's package of each program."""


def put_tree(folder: Path) -> None:
    """Writes the files that the programs pack."""
    for name, data in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name in FOLDERS:
        (folder / name).mkdir()


def program(name: str) -> str:
    """The path of a program, or the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {APT[name]}")
    return found


def run(*command: str, cwd: Path, data: bytes | None = None) -> bytes:
    """What a program writes to stdout."""
    return subprocess.run(
        [program(command[0]), *command[1:]], cwd=cwd, input=data, capture_output=True, check=True, timeout=60
    ).stdout


def packed(*command: str) -> Callable[[Path], bytes]:
    """What a program packs into out.zip."""

    def make(folder: Path) -> bytes:
        put_tree(folder)
        run(*command, cwd=folder)
        return (folder / "out.zip").read_bytes()

    return make


def streamed(*command: str) -> Callable[[Path], bytes]:
    """What a program packs to stdout, where it cannot go back to write sizes."""

    def make(folder: Path) -> bytes:
        put_tree(folder)
        return run(*command, cwd=folder)

    return make


def self_extracting(folder: Path) -> bytes:
    """A stub before an archive, whose places Info-ZIP corrects."""
    data = b'#!/bin/sh\nexec unzip "$0"\n' + packed("zip", "-q", "-r", "out.zip", "ST")(folder)
    (folder / "sfx.zip").write_bytes(data)
    run("zip", "-q", "-A", "sfx.zip", cwd=folder)
    return (folder / "sfx.zip").read_bytes()


PROGRAMS: dict[str, Callable[[Path], bytes]] = {
    "Info-ZIP": packed("zip", "-q", "-r", "out.zip", "ST"),
    "Info-ZIP, stored": packed("zip", "-q", "-0", "-r", "out.zip", "ST"),
    "Info-ZIP, bzip2": packed("zip", "-q", "-Z", "bzip2", "-r", "out.zip", "ST"),
    "Info-ZIP, ZIP64": packed("zip", "-q", "-fz", "-r", "out.zip", "ST"),
    "Info-ZIP, descriptors": packed("zip", "-q", "-fd", "-r", "out.zip", "ST"),
    "Info-ZIP, without folders": packed("zip", "-q", "-D", "-X", "-r", "out.zip", "ST"),
    "Info-ZIP, streamed": streamed("zip", "-q", "-r", "-", "ST"),
    "Info-ZIP, self-extracting": self_extracting,
    "7-Zip": packed("7zz", "a", "-tzip", "out.zip", "ST"),
    "7-Zip, stored": packed("7zz", "a", "-tzip", "-mx0", "out.zip", "ST"),
    "7-Zip, UTF-8": packed("7zz", "a", "-tzip", "-mcu=on", "out.zip", "ST"),
    "7-Zip, bzip2": packed("7zz", "a", "-tzip", "-mm=BZip2", "out.zip", "ST"),
    "7-Zip, Deflate64": packed("7zz", "a", "-tzip", "-mm=Deflate64", "out.zip", "ST"),
    "7-Zip, LZMA": packed("7zz", "a", "-tzip", "-mm=LZMA", "out.zip", "ST"),
    "7-Zip, xz": packed("7zz", "a", "-tzip", "-mm=xz", "out.zip", "ST"),
    "bsdtar": packed("bsdtar", "--format", "zip", "-cf", "out.zip", "ST"),
    "bsdtar, stored": packed("bsdtar", "--format", "zip", "--options", "zip:compression=store", "-cf", "out.zip", "ST"),
    "bsdtar, ZIP64": packed("bsdtar", "--format", "zip", "--options", "zip:zip64", "-cf", "out.zip", "ST"),
    "bsdtar, streamed": streamed("bsdtar", "--format", "zip", "-cf", "-", "ST"),
}
"""Each packs TREE and FOLDERS."""


def unicode_path(raw: bytes, text: str, crc: int | None = None) -> bytes:
    """Info-ZIP's field 0x7075."""
    data = struct.pack("<BI", 1, zlib.crc32(raw) if crc is None else crc) + text.encode()
    return struct.pack("<HH", 0x7075, len(data)) + data


def apple(name: str, data: bytes = b"") -> Record:
    """As macOS' Archive Utility does: UTF-8 without its flag, sizes behind the data, times and owner in fields."""
    extra = struct.pack("<HHBI", 0x5455, 5, 1, 1_700_000_000) + struct.pack("<HHHH", 0x7855, 4, 501, 20)
    folder = name.endswith("/")
    return Record(
        name.encode(), data, method=0 if folder else 8, extra=extra, mode=0o40755 if folder else 0o100644,
        descriptor=not folder,
    )  # fmt: skip


def dotnet(name: str, data: bytes = b"") -> Record:
    r"""As .NET Framework before 4.6.1 does: `\` between folders, attributes of DOS."""
    return Record(name.encode(), data, method=8 if data else 0, system=0, dos=0x20 if data else 0x10)


TWO = [Record(b"a.dcm", IMAGE), Record(b"b.txt", NOTE, method=0)]
_SECTOR = struct.pack("<HI", 0xFF, 4) + b"data"
_SIGNATURE = b"PK\x05\x05\x04\x00sign"


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    found = bytearray(data)
    found[at : at + len(new)] = new
    return bytes(found)


RULES: dict[str, bytes] = {
    ".NET": forge([dotnet("ST\\"), dotnet("ST\\IM.dcm", IMAGE), dotnet("ST\\deep\\"), dotnet("ST\\deep\\a", NOTE)]),
    "Apple": forge([apple("ST/"), apple("ST/ärztlich.dcm", IMAGE), apple("__MACOSX/ST/._ärztlich.dcm", b"\0\5\x16\7")]),
    "folders by attribute": forge(
        [
            Record(b"FAT", method=0, system=0, dos=0x10),
            Record(b"NTFS", method=0, system=11, dos=0x30),
            Record(b"VFAT", method=0, system=14, dos=0x10),
            Record(b"Unix", method=0, system=3, mode=0o40755),
            Record(b"no folder", method=0, system=3, mode=0o100644),
            Record(b"none either", method=0, system=0, dos=0x20),
            *TWO,
        ]
    ),
    "behind a program": forge(TWO, prefix=b"MZ" + bytes(510)),
    "behind a program, places corrected": forge(TWO, prefix=b"MZ" + bytes(510), adjusted=True),
    "behind a script, ZIP64": forge(TWO, prefix=b"#!/bin/sh\n", end64=True),
    "behind a program, ZIP64 with a sector": forge(TWO, prefix=b"\x7fELF" + bytes(999), end64=True, extensible=_SECTOR),
    "behind other bytes, with a comment": forge(TWO, prefix=b"\xff\xd8" + bytes(99), comment=b"long " * 13_000),
    "ZIP64 with a sector": forge(TWO, end64=True, extensible=_SECTOR),
    "ZIP64 with a long sector": forge(TWO, end64=True, extensible=struct.pack("<HI", 0xFF, 60_000) + bytes(60_000)),
    "ZIP64 that knows the first disk": _patched(forge(TWO, end64=True), -16, b"\4"),
    "ZIP64 fields": forge([Record(b"a.dcm", IMAGE, zip64=True), Record(b"b.txt", NOTE, zip64=True)], end64=True),
    "bytes behind the end": forge(TWO, trailing=b"\0" * 512),
    "many bytes behind the end": forge(TWO, trailing=bytes(200_000)),
    "a long comment": forge(TWO, comment=b"x" * 65_535),
    "a comment with an end mark": forge(TWO, comment=b"see PK\5\6 above, and some more bytes than a record has"),
    "a comment with an empty archive": forge(TWO, comment=b"PK\5\6" + bytes(18)),
    "a comment with an archive": forge(TWO, comment=forge([Record(b"c", b"c")])),
    "names that repeat": forge([*TWO, Record(b"a.dcm", NOTE), Record(b"a.dcm", b"")]),
    "code page 437": forge([Record(b"caf\x82", IMAGE, system=0), *TWO]),
    "a Unicode path": forge([Record(b"M_ller", IMAGE, extra=unicode_path(b"M_ller", "Müller")), *TWO]),
    "an old Unicode path": forge([Record(b"new", IMAGE, extra=unicode_path(b"old", "öld")), *TWO]),
    "a local header of another name": forge([Record(b"a", IMAGE, local_name=b"some other"), *TWO]),
    "more in the local header": forge([Record(b"a", IMAGE, local_extra=bytes(77)), *TWO]),
    "a field cut short": forge([Record(b"a", IMAGE, extra=b"\x99\x99\xff\xff\0"), *TWO]),
    "made to be split": b"PK00" + forge(TWO, prefix=b"PK00", adjusted=True)[4:],
} | {
    f"data descriptor {form}": forge(
        [Record(b"a", IMAGE, descriptor=True, descriptor_form=form),
         Record(b"b", NOTE, method=0, descriptor=True, descriptor_form=form)]
    )
    for form in DESCRIPTORS
}  # fmt: skip
"""Archives that 7-Zip lists and extracts."""

BEYOND: dict[str, bytes] = {
    "an empty name": forge([Record(b"", IMAGE), *TWO]),
    "a signed directory": forge(TWO, between=_SIGNATURE),
    "bytes behind the directory": forge(TWO, between=bytes(7)),
    "another count": forge(TWO, count=7),
    "zstd": forge([Record(b"a", IMAGE, method=93, packed=pa.compress(IMAGE, codec="zstd", asbytes=True)), *TWO]),
    "zstd, its first number": forge(
        [Record(b"a", NOTE, method=20, packed=pa.compress(NOTE, codec="zstd", asbytes=True)), *TWO]
    ),
}
"""Archives that are read although 7-Zip has a name of its own for something in them, or a complaint."""


def put_beyond_four_gibibytes(path: Path, records: list[Record], prefix: bytes, hole: int) -> None:
    """An archive without ZIP64 that has a hole before each member but the first, as a sparse file."""
    directory = b""
    with path.open("wb") as file:
        file.write(prefix)
        for number, record in enumerate(records):
            file.seek(hole if number else 0, 1)
            directory += central(record, file.tell() - len(prefix))
            file.write(local(record))
        start = file.tell() - len(prefix)
        file.write(directory)
        file.write(ending(len(records), len(directory), start, file.tell()))
