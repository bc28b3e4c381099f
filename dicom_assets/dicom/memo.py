"""What the reader remembers from one object to the next: raw elements that repeat, and the JSON they became.

Belongs here: tables from raw bytes to JSON fragments, and their bounds. An entry never changes what is read: equal
bytes in an equal context mean the same, and only elements without flaw are remembered. Does not belong here: the walk.

Objects of a series differ in few elements. So the memo holds, besides single elements, runs: neighbouring elements
that were equal in neighbouring objects; one comparison of bytes then stands for some dozens of elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.vocabulary import Vocabulary

MAX_VALUE = 1024
"""Longer values are not remembered: they seldom repeat."""
MAX_SEQUENCE = 1 << 16
_MAX_HELD = 16 << 20  # bytes of raw elements and fragments
_MAX_CONTEXTS = 64
_MAX_CANDIDATES = 4
_PAGE = 4096
_LEAST_READ = 8192  # bytes; whether an object is DICOM is seen in its first 4096
_ROOM = 1024
_OVERHEAD = 300  # bytes that Python needs for an entry besides its texts


NONE_YET: Mapping[bytes, bytes] = {}
"""Stands for a table of sequences that nothing was written to."""


class Entry(NamedTuple):
    """What one raw element stands for.

    fragment: its member of the JSON object. columns: what columns take from it.
    depends: tag of the element that decided how it is read (private creator, Pixel Representation), 0 for none.
    notes: its value by its tag, where others depend on it.
    """

    fragment: bytes
    columns: dict[str, Any] | None
    depends: int
    notes: dict[int, bytes] | None


class Members(bytes):
    """Members of several elements of a JSON object, with commas between them; plain bytes are of one."""

    __slots__ = ()


class Run(NamedTuple):
    """Neighbouring elements with everything they stand for; `last` is the last one's tag."""

    raw: bytes
    fragment: Members
    columns: dict[str, Any]
    notes: dict[int, bytes]
    last: int


MetaElement = tuple[int, str, bytes]
"""An element of File Meta Information: tag, VR, raw value."""


class Begun(NamedTuple):
    """How an object began.

    front: its bytes from `DICM` to the value of Media Storage SOP Instance UID, which lies from `at` to `behind`. back:
    bytes from there to the data set. before, after: the elements on both sides, and what their JSON is.
    """

    front: bytes
    at: int
    behind: int
    back: bytes
    preface: Preface
    before: tuple[MetaElement, ...]
    after: tuple[MetaElement, ...]
    json_before: bytes
    json_after: bytes


class Reach:
    """How many bytes of an object, or of a part of it, were needed of late: so many are read of the next one at once.

    Reading more than that takes longer than all the rest of a small header does; what a larger one among smaller ones
    needs is let go slowly.
    """

    __slots__ = ("_needed",)

    def __init__(self) -> None:
        """Nothing known."""
        self._needed: int | None = None

    def length(self, most: int) -> int:
        """Bytes to read, at most `most`: whole pages, with room for a UID or a name that is longer."""
        if self._needed is None:
            return most
        return min(max(-(-(self._needed + _ROOM) // _PAGE) * _PAGE, _LEAST_READ), most)

    def note(self, needed: int, most: int) -> None:
        """Keeps what one object needed; `most` where what was read did not suffice."""
        former = most if self._needed is None else self._needed
        self._needed = max(needed, former - former // 8)


class Context:
    """Memory for one encoding and character set.

    top: elements of the data set itself. nested: elements in items. sequences: whole sequences, by depth and inherited
    Pixel Representation, which decide how they are read. latest: the newest sequence without length, by tag. runs: by
    first tag, newest first. previous: the element that a tag last had, outside of runs.
    """

    __slots__ = ("codecs", "latest", "nested", "previous", "runs", "sequences", "top", "vocabulary")

    def __init__(self, vocabulary: Vocabulary, codecs: tuple[str, ...]) -> None:
        """Empty."""
        self.vocabulary = vocabulary
        self.codecs = codecs
        self.top: dict[Any, Entry] = {}
        self.nested: dict[Any, bytes] = {}
        self.sequences: dict[tuple[int, bytes | None], dict[bytes, bytes]] = {}
        self.latest: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self.runs: dict[int, list[Run]] = {}
        self.previous: dict[int, bytes] = {}

    def forget(self) -> None:
        """Empties all tables."""
        for table in (self.top, self.nested, self.sequences, self.latest, self.runs, self.previous):
            table.clear()


class Memo:
    """The memory of one reader, for objects read one after the other in folder order; forgets before it grows."""

    __slots__ = (
        "_contexts", "_held", "_vocabularies", "began_at", "begun", "first_reach", "later_reach", "meta", "stable",
    )  # fmt: skip

    def __init__(self) -> None:
        """Empty."""
        self._contexts: dict[tuple[bool, bool, tuple[str, ...]], Context] = {}
        self._vocabularies: dict[tuple[bool, bool], Vocabulary] = {}
        self._held = 0
        self.meta: dict[MetaElement, bytes] = {}
        """Fragments of elements of File Meta Information."""
        self.stable: dict[bytes, bytes] = {}
        """What stays of runs and sequences when an image is sent again, see `stable`."""
        self.begun: Begun | None = None
        """How an object began that was much like the one before it."""
        self.began_at = 0
        """Where the data set of the object before began."""
        self.first_reach = Reach()
        self.later_reach = Reach()
        """Of the first window of an object, and of those behind what was passed over."""

    def context(self, explicit: bool, little: bool, codecs: tuple[str, ...]) -> Context:
        """The memory for one encoding and character set."""
        key = (explicit, little, codecs)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= _MAX_CONTEXTS:
                self.forget()
                self._contexts.clear()
            vocabulary = self._vocabularies.setdefault(key[:2], Vocabulary(explicit, little))
            context = self._contexts[key] = Context(vocabulary, codecs)
        return context

    def hold(self, size: int) -> None:
        """Counts what an entry of `size` bytes costs; forgets everything when it is too much."""
        self._held += size + _OVERHEAD
        if self._held > _MAX_HELD:
            self.forget()

    def forget(self) -> None:
        """Empties all tables; what was read stays right."""
        for context in self._contexts.values():
            context.forget()
        self.meta.clear()
        self.stable.clear()
        self.begun = None
        self._held = 0

    def learn(self, context: Context, trail: Iterable[tuple[int, bytes, Entry] | None]) -> None:
        """Makes runs of neighbours that stay from object to object; `trail` has (tag, raw, entry), None for a gap.

        An element that was equal in some object long ago (an instance number, a position) is no reason for a run: it
        must be what it was when its tag was last here.
        """
        group: list[tuple[int, bytes, Entry]] = []
        tags: set[int] = set()
        previous = context.previous
        for step in (*trail, None):
            if step is not None:
                tag, raw, entry = step
                stays = previous.get(tag) == raw
                previous[tag] = raw
                # What decides how an element is read must stand in the run itself.
                if stays and (not entry.depends or entry.depends in tags):
                    group.append(step)
                    tags.add(tag)
                    continue
            if len(group) > 1:
                self._keep(context, group)
            group, tags = [], set()

    def _keep(self, context: Context, group: list[tuple[int, bytes, Entry]]) -> None:
        columns: dict[str, Any] = {}
        notes: dict[int, bytes] = {}
        for _, _, entry in group:
            columns.update(entry.columns or {})
            notes.update(entry.notes or {})
        raw = b"".join(raw for _, raw, _ in group)
        fragment = Members(b",".join(entry.fragment for _, _, entry in group))
        candidates = context.runs.setdefault(group[0][0], [])
        if any(run.raw == raw for run in candidates):
            return
        self.hold(len(raw) + len(fragment))
        candidates.insert(0, Run(raw, fragment, columns, notes, group[-1][0]))
        del candidates[_MAX_CANDIDATES:]
