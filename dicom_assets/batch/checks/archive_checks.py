"""Rules that hold the members of each archive against the archive's own directory, read in another way.

Belongs here: zip files by the standard library's zipfile, and by chains of records (`directory_chains`) where zipfile
reads otherwise or not at all; window files of changes by Arrow's zstd. Does not belong here: `landing.archives`, which
is judged here and takes no part but to open members that are clinical files.

Nested archives are compared as well where they are stored or deflated. An archive that cannot be compared (it is gone,
what is nested in it is not to be had, it is beyond a bound) is named by a remark that blocks nothing.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.checks.directory_chains import Record, TooLarge, chains, is_folder
from dicom_assets.batch.checks.reopening import bounded_file, chosen, reopened, rows_of, source_of_batch, verified
from dicom_assets.lake.query import connect, quoted
from dicom_assets.lake.staging import Part
from dicom_assets.landing.store import ObjectError
from dicom_assets.schema.codes import Kind
from dicom_assets.storage.byte_file import ByteFile

NESTED_BYTES = 64 << 20
"""What is inflated of nested archives in one archive."""

_READ_BYTES = 512 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES = 512
_PATH_FIELD = b"\x75\x70"
"""Tag of Info-ZIP's Unicode path."""
_EMPTY = b"PK\x05\x06"
"""What an archive without members begins with."""
_INFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class Member:
    """A member as it was staged. at: the place of its record in the directory."""

    at: int
    size: int
    name: str
    is_open: bool


Members = Mapping[tuple[int, ...], Sequence[Member]]
"""By the place of an archive within the outermost one (empty for that itself), its members in the directory's order."""


@dataclass(slots=True)
class Comparison:
    """What came of the archives of a batch. lists of object_ids: compared, of these differing, not compared."""

    compared: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Incomparable(Exception):
    """No other reader can tell what is in the archive."""


class _NotRead(Exception):
    """The standard library's zipfile does not open the archive."""


def comparison(context: CheckContext) -> Comparison:
    """Compares the archives of a batch with what was staged of them."""
    settings = context.settings.checks
    result = Comparison()
    opened = _opened_archives(context)
    if not opened:
        return result
    ids = chosen(context.staging.batch_id, opened, settings.archives)
    result.left_out += sorted(set(opened) - set(ids))
    inside, large = _members(context, set(ids), settings.archive_members)
    result.left_out += sorted(large)
    rows = rows_of(context, [one for one in ids if one not in large])
    for row, source in reopened(source_of_batch(context), rows, context.settings.archives):
        name = row["object_id"]
        try:
            if isinstance(source, ObjectError):
                raise Incomparable
            is_same = _is_same(context, row, bounded_file(source, _READ_BYTES), inside.get(name, {}))
            if not verified(source):
                raise Incomparable
        except (Incomparable, OSError):
            result.left_out.append(name)
            continue
        result.compared.append(name)
        if not is_same:
            result.differing.append(name)
    return result


def _opened_archives(context: CheckContext) -> list[str]:
    """object_ids of archives that were opened up; those inside others are compared with these."""
    found: list[str] = []
    for batch in context.staging.batches(Part.RAW, ["object_id", "container_id", "kind", "verdict"]):
        found += [
            row["object_id"]
            for row in batch.to_pylist()
            if row["container_id"] is None and row["kind"] == Kind.ARCHIVE and row["verdict"] == "ARCHIVE_EXPANDED"
        ]
    return found


def _members(context: CheckContext, wanted: set[str], most: int) -> tuple[dict[str, Members], set[str]]:
    """The staged members of some archives, and the archives that have more than `most`."""
    found: dict[str, dict[tuple[int, ...], list[Member]]] = defaultdict(lambda: defaultdict(list))
    sizes: dict[str, int] = defaultdict(int)
    columns = ["container_id", "entry", "size", "member", "kind", "verdict"]
    for batch in context.staging.batches(Part.RAW, columns):
        for row in batch.to_pylist():
            container = row["container_id"]
            if container not in wanted:
                continue
            sizes[container] += 1
            if sizes[container] > most:
                found.pop(container, None)
                continue
            *path, at = row["entry"]
            is_open = row["kind"] == Kind.ARCHIVE and row["verdict"] == "ARCHIVE_EXPANDED"
            found[container][tuple(path)].append(Member(at, row["size"], row["member"] or "", is_open))
    large = {container for container, size in sizes.items() if size > most}
    ordered: dict[str, Members] = {
        container: {path: sorted(own, key=lambda one: one.at) for path, own in archives.items()}
        for container, archives in found.items()
        if container not in large
    }
    return ordered, large


def _is_same(context: CheckContext, row: Mapping[str, Any], file: ByteFile, members: Members) -> bool:
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return next(recount for begins, recount in RECOUNTS if begins(head))(context, row, file, members)


def _recount_lines(context: CheckContext, row: Mapping[str, Any], file: ByteFile, members: Members) -> bool:
    return _same_lines(context, row, file, members.get((), ()))


def _recount_zip(context: CheckContext, row: Mapping[str, Any], file: ByteFile, members: Members) -> bool:
    return same_archive(file, members, (), "", [NESTED_BYTES])


Recount = Callable[[CheckContext, Mapping[str, Any], ByteFile, Members], bool]

RECOUNTS: list[tuple[Callable[[bytes], bool], Recount]] = [
    (lambda head: head.startswith(_ZSTD), _recount_lines),
    (lambda head: True, _recount_zip),
]
"""By the first bytes of an archive the reader that lists it once more; the last one is for ZIP files, whatever stands
before them."""


def same_archive(
    file: IO[bytes] | ByteFile, members: Members, path: tuple[int, ...], prefix: str, left: list[int]
) -> bool:
    """Whether an archive's directory lists what was staged, in its order. left: bytes that may still be inflated.

    What zipfile does not list, or lists otherwise, is decided by the chains of records in the file; and so it is that
    there is nothing, since end marks in a comment make zipfile see an empty archive.
    """
    staged = members.get(path, ())
    try:
        with _archive(file) as archive:
            pairs = _paired(archive, staged, prefix) if staged else None
            if pairs is not None:
                return all(_same_nested(archive, info, member, members, path, left) for info, member in pairs)
    except _NotRead:
        pass
    return _same_chains(file, staged, prefix)


def _paired(
    archive: zipfile.ZipFile, staged: Sequence[Member], prefix: str
) -> list[tuple[zipfile.ZipInfo, Member]] | None:
    """Each member that zipfile lists with the staged one; None where they differ."""
    listed = [info for info in archive.infolist() if not _stands_for_folder(info)]
    if len(listed) != len(staged):
        return None
    pairs = list(zip(listed, staged, strict=True))
    same = all(info.file_size == one.size and _same_name(_plain(info), one, prefix) for info, one in pairs)
    return pairs if same else None


def _same_nested(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    member: Member,
    members: Members,
    path: tuple[int, ...],
    left: list[int],
) -> bool:
    """Whether what was staged of an archive in another is the same, too. Raises Incomparable."""
    if not member.is_open:
        return True
    if info.compress_type not in _INFLATED or info.file_size > left[0]:
        raise Incomparable
    left[0] -= info.file_size
    with _member(archive, info) as nested:
        return same_archive(nested, members, (*path, member.at), f"{member.name}!", left)


def _same_chains(file: IO[bytes] | ByteFile, staged: Sequence[Member], prefix: str) -> bool:
    """Whether what was staged is one chain of records, or several, or there is no record. Raises Incomparable."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if not staged and file.read(4) == _EMPTY:
        raise Incomparable  # an empty archive; whether what stands behind it belongs to one, readers see differently
    try:
        found = chains(file, size, min((member.at for member in staged), default=0))  # type: ignore[arg-type]
    except TooLarge:
        raise Incomparable from None
    places = {member.at for member in staged}
    listed = [[one for one in chain if not one.is_folder] for chain in found]
    chosen = [chain for chain in listed if chain and (not places or any(one.at in places for one in chain))]
    # of chains that end in the same records the one that is meant: the longest one of which all records are staged
    chains_of = Counter(one.at for chain in chosen for one in chain)
    flat: list[Record] = []
    for chain in chosen:
        is_meant = {one.at for one in chain} <= places and not any(one.at == chain[-1].at for one in flat)
        if is_meant or all(chains_of[one.at] == 1 for one in chain):
            flat += chain
    if len(flat) != len(staged):
        return False
    for record, member in zip(flat, staged, strict=True):
        if (record.at, record.size) != (member.at, member.size) or not _same_name(record.name, member, prefix):
            return False
    if any(member.is_open for member in staged):
        raise Incomparable
    return True


def _stands_for_folder(info: zipfile.ZipInfo) -> bool:
    return is_folder(info.file_size, info.orig_filename, info.create_system, info.external_attr)


def _archive(file: IO[bytes] | ByteFile) -> zipfile.ZipFile:
    """The archive; _NotRead when zipfile refuses it."""
    try:
        return zipfile.ZipFile(file)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error):
        raise _NotRead from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        raise Incomparable from None


def _plain(info: zipfile.ZipInfo) -> str | None:
    """The name where all readers tell it alike: printable ASCII, and none in another field."""
    name = info.orig_filename
    return name if name.isascii() and name.isprintable() and _PATH_FIELD not in info.extra else None


def _same_name(name: str | None, member: Member, prefix: str) -> bool:
    """A repeated name has a number behind it."""
    return name is None or member.name.startswith(prefix + (name or "#1"))


def _same_lines(context: CheckContext, row: Mapping[str, Any], file: ByteFile, members: Sequence[Member]) -> bool:
    """Whether each line of a window file but the first is an entry here, or of the same file in an earlier batch."""
    file.seek(0)
    lines = sum(_lines_of(file)) - 1
    if lines == len(members):
        return True
    with connect(context.lake, ["raw_files"]) as connection:
        known = connection.execute(
            f"SELECT count(*) FROM raw_files WHERE uri = {quoted(row['uri'])} AND container_id IS NOT NULL "
            f"AND batch_id <> {context.batch}"
        ).fetchall()[0][0]
    return bool(len(members) < lines <= len(members) + known)


def _lines_of(file: ByteFile) -> Iterator[int]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
            while piece := stream.read_buffer(1 << 20).to_pybytes():
                yield piece.count(b"\n")
    except pa.ArrowException:
        raise Incomparable from None


def members_equal_directories(context: CheckContext) -> CheckResult:
    """What another reader lists in an archive = what was staged of it."""
    found = context.once("archives", comparison)
    differing = sorted(found.differing)
    return CheckResult(not differing, len(found.compared), len(found.compared) - len(differing), differing[:SHOWN])


def archives_are_compared(context: CheckContext) -> CheckResult:
    """Every archive that was opened up could be compared."""
    found = context.once("archives", comparison)
    total = len(found.compared) + len(found.left_out)
    return CheckResult(
        not found.left_out,
        total,
        len(found.compared),
        sorted(found.left_out)[:SHOWN],
        f"{len(found.left_out)} of {total} archives were not compared: gone, with nested ones that the other readers "
        "do not open, or beyond the bounds of [checks]."
        if found.left_out
        else "",
    )


ARCHIVE_RULES: tuple[NamedRule, ...] = (
    NamedRule("raw_files", "members_equal_directories", "Members = directories read by another library",
              members_equal_directories),
    NamedRule("raw_files", "archives_are_compared", "No archive was left out of the comparison",
              archives_are_compared, blocking=False),
)  # fmt: skip
"""Every rule of this module."""
