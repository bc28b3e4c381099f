"""SQL for the file that an object is or lies in: its version and size, as raw_files has them.

Belongs here: the one way from a row to its file, for serving, exporting and forwarding. Does not belong here: opening
it (`landing.retrieval`).

A file that arrived has a row of its own. An archive that mode `organize` has made of a single object has none: the row
of the object has the version of the archive, and its size is asked for where it lies.
"""

from __future__ import annotations

FILE_COLUMNS = ("batch_id", "object_id", "uri", "member", "etag", "size", "kind")
"""Columns of raw_files that these joins ask for."""
FILE_ETAG = "coalesce(file.etag, inside.etag)"
FILE_SIZE = "file.size"
"""NULL for an archive that mode `organize` has made, and where there is no file."""


def file_joins(row: str, files: str) -> str:
    """Joins of rows to their files. row: alias of what has batch_id, object_id and uri.

    files: what stands for raw_files. What a DICOM service has only told of has no file.
    """
    return f"""
LEFT JOIN (FROM {files} WHERE member IS NULL) AS file ON file.batch_id = {row}.batch_id AND file.uri = {row}.uri
LEFT JOIN (FROM {files} WHERE member IS NOT NULL AND kind <> 'change') AS inside
    ON inside.batch_id = {row}.batch_id AND inside.object_id = {row}.object_id"""
