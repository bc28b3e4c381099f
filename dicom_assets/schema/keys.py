"""Hashes that name rows: short, stable, and without patient data in them.

Belongs here: one function a key. Does not belong here: object_id, which the landing zone makes.
"""

from __future__ import annotations

import hashlib


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
    return _digest(8, key)


def file_key(source: str, uri: str, member: str | None) -> str:
    """Key of a file whatever its version: BLAKE2b-80 of source, uri and member."""
    return _digest(10, source, uri, member or "")


def record_key(*parts: str) -> str:
    """Key of a clinical record: BLAKE2b-96 of what names it within its source."""
    return _digest(12, *parts)


def correction_key(*parts: str | None) -> str:
    """Key of a correction: BLAKE2b-96 of everything that it says; what is missing differs from what is empty."""
    return _digest(12, *("-" if part is None else f"={part}" for part in parts))


def content_digest(header: bytes) -> str:
    """BLAKE2b-128 of a header's DICOM JSON."""
    return hashlib.blake2b(header, digest_size=16).hexdigest()
