"""Paths of a service's resources, made of names that come from outside: UIDs, data partitions, ids of Orthanc.

Belongs here: the one place where such a name becomes a part of a path. Whatever it holds, it stays that one part, so
that a request never reaches another resource, or another application, of the same host. Does not belong here: queries,
whose values `client` encodes.
"""

from __future__ import annotations

from urllib.parse import quote

from dicom_assets.service.errors import AnswerInvalid

CLIMBING = frozenset(("", ".", ".."))
"""What no encoding keeps from being understood as a step (RFC 3986 5.2.4, 6.2.2.3)."""


def fits_in_path(name: str) -> bool:
    """Whether a name can be one part of a path."""
    return name not in CLIMBING


def resource(service: str, *parts: str) -> str:
    """A path of these parts, each percent-encoded (RFC 3986 2.1). service: its name, for errors.

    Raises AnswerInvalid for a part that no encoding makes safe.
    """
    if not all(map(fits_in_path, parts)):
        raise AnswerInvalid(service, "a resource", "A UID or name that the server gave cannot be part of a path.")
    return "/".join(quote(part, safe="", errors="surrogatepass") for part in parts)
