"""Addresses of studies, series and instances, as answers give them (PS3.18 10.4.1).

Belongs here: from UIDs to an address. Does not belong here: the base, as the client reached it (`call`).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

_KINDS = ("studies", "series", "instances")


def address(base: str, uids: Iterable[str]) -> str:
    """The address of a study, series or instance. uids: the study's first; whatever they hold, it is one address."""
    return base + "".join([f"/{kind}/{_written(uid)}" for kind, uid in zip(_KINDS, uids, strict=False)])


def instance_of(series: str, uid: str) -> str:
    """The address of an instance of a series. series: the address of that; uid: of the instance."""
    return f"{series}/{_KINDS[2]}/{_written(uid)}"


def _written(uid: str) -> str:
    return uid if uid.replace(".", "").isalnum() and uid.isascii() else quote(uid, safe="")
