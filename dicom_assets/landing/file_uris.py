"""Files of this machine by URI, and the version of their bytes. Does not belong here: reading them (`local`)."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

SCHEME = "file://"


def uri_of(path: str | bytes) -> str:
    """File URI (RFC 8089) of an absolute path, percent-encoded byte by byte, so that any name survives."""
    return SCHEME + quote_from_bytes(os.fsencode(path))


def path_of(uri: str) -> str:
    """The path that `uri_of` encoded; bytes that are not UTF-8 come back as surrogates, as `os` functions take them.

    ValueError when it is not the URI of a local file.
    """
    if not uri.startswith("file:///"):
        raise ValueError("not the URI of a local file")
    path = uri[len(SCHEME) :]
    if "%" not in path and path.isascii():  # most: nothing was encoded
        return path
    return os.fsdecode(unquote_to_bytes(path))


def etag_of(status: os.stat_result) -> str:
    """Version of a file's bytes: modification time in ns and size, both hexadecimal."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
