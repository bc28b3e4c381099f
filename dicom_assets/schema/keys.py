"""Hashes that name rows: short, stable, and without patient data in them.

Belongs here: one function a key. Does not belong here: object_id, which the landing zone makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def _digest(size: int, *parts: str) -> str:
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def study_key(source: str, study_uid: str) -> str:
    """Key of a study: BLAKE2b-64 of source and StudyInstanceUID, 16 hexadecimal characters."""
    return _digest(8, source, study_uid)


def position(key: str) -> str:
    """Place of a key in a table that is ordered by hash: BLAKE2b-64 of it, 16 hexadecimal characters."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape") + b"\0", digest_size=8).hexdigest()


def file_key(source: str, uri: str, member: str | None) -> str:
    """Key of a file whatever its version: BLAKE2b-80 of source, uri and member."""
    return _digest(10, source, uri, member or "")


def record_key(*parts: str) -> str:
    """Key of a clinical record: BLAKE2b-96 of what names it within its source."""
    return _digest(12, *parts)


def correction_key(*parts: str | None) -> str:
    """Key of a correction: BLAKE2b-96 of everything that it says; what is missing differs from what is empty."""
    return _digest(12, *("-" if part is None else f"={part}" for part in parts))


def profile_key(*parts: str | None) -> str:
    """Key of a device with its software: BLAKE2b-64 of what it says of itself."""
    return _digest(8, *("-" if part is None else f"={part}" for part in parts))


def uid_numbers(uids: Iterable[str]) -> npt.NDArray[np.int64]:
    """What stands for UIDs in the index of UIDs: BLAKE2b-64 of each, as a signed integer of 64 bits."""
    digests = [hashlib.blake2b(uid.encode("utf-8", "surrogateescape"), digest_size=8).digest() for uid in uids]
    return np.frombuffer(b"".join(digests), ">i8").astype(np.int64)


_REFERENCE = b'"BulkDataURI":"?offset='
"""How a reference into an object begins; within a text its quotation marks would be escaped."""
_BEFORE, _BEHIND = _REFERENCE.index(b"?"), len(_REFERENCE) - _REFERENCE.index(b"?")


def content_digest(header: bytes) -> str:
    """BLAKE2b-128 of a header's DICOM JSON without the offsets of references into the object.

    It is about what an object says, not how it is laid out: a longer File Meta Information moves all offsets. Lengths
    count.
    """
    digest = hashlib.blake2b(digest_size=16)
    begin, at = 0, header.find(b"?")  # one rare byte is found ten times as fast as all of them
    while at >= 0:
        behind = at + _BEHIND
        if header[at - _BEFORE : behind] == _REFERENCE:
            digest.update(header[begin:behind])
            begin = header.find(b"&", behind)
        at = header.find(b"?", behind)
    digest.update(header[begin:] if begin else header)
    return digest.hexdigest()
