"""What a lake knows of its self-tests: which batches were theirs, and what one that was killed has left.

Belongs here: the entry of one self-test, and its file `_selftests/{token}.json`. Does not belong here: what is done
(`rehearsal`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from dicom_assets.storage.files import LakeFiles

FOLDER = "_selftests"
PREFIX = "selftest-"
"""What the folder of a self-test in a landing zone begins with; its token follows."""


@dataclass(frozen=True)
class Entry:
    """One self-test. All times in ISO form.

    source, root: as the settings name them. batches: those that have its objects. elsewhere: places that its objects
    were moved to. erasures: by which it was to be taken out. cleaned_at: when nothing of it was left. passed: what it
    came to; None as long as it has come to nothing.
    """

    token: str
    source: str
    root: str
    begun_at: str
    batches: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str, int], ...] = ()
    erasures: tuple[str, ...] = ()
    cleaned_at: str | None = None
    passed: bool | None = None

    @property
    def prefix(self) -> str:
        """Path below the source's root, where everything of it lies."""
        return f"{PREFIX}{self.token}"


def begin(files: LakeFiles, source: str, root: str) -> Entry:
    """Writes down a new self-test, before anything of it is delivered. Raises LakeError."""
    entry = Entry(secrets.token_hex(4), source, root, datetime.now(UTC).isoformat())
    write(files, entry)
    return entry


def write(files: LakeFiles, entry: Entry) -> Entry:
    """Writes down how far one has come. Raises LakeError."""
    files.put(f"{FOLDER}/{entry.token}.json", json.dumps(asdict(entry)).encode())
    return entry


def finish(files: LakeFiles, entry: Entry) -> Entry:
    """Writes down that nothing is left of one. Raises LakeError."""
    return write(files, replace(entry, cleaned_at=datetime.now(UTC).isoformat(), elsewhere=()))


def entries(files: LakeFiles) -> Iterator[Entry]:
    """All self-tests of a lake, oldest first. Raises LakeError."""
    found = []
    for name in files.names(FOLDER):
        try:
            told = json.loads(files.get(name))
            told |= {name: tuple(told[name]) for name in ("batches", "erasures")}
            told["elsewhere"] = tuple((str(uri), str(etag), int(size)) for uri, etag, size in told["elsewhere"])
            found.append(Entry(**told))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            continue  # torn, or of another release: nothing that it says can be relied on
    yield from sorted(found, key=lambda entry: entry.begun_at)


def sentences(files: LakeFiles) -> Iterator[str]:
    """What whoever looks at the books wants to know: whose batches are of self-tests, and what is left of one."""
    known = list(entries(files))
    batches = sorted({batch for entry in known for batch in entry.batches})
    if batches:
        few = " ".join(batches[-5:])
        yield f"Batches of self-tests, whose objects were of nobody: {len(batches)} ({'… ' * (len(batches) > 5)}{few})."
    for entry in known:
        if entry.cleaned_at is None:
            yield (
                f"Self-test {entry.token} of {entry.begun_at[:19]}Z is under way, or was broken off: "
                "`dicom-assets selftest --clean` takes out what it left."
            )
