"""What is known of one request while it is answered: who asks, which resource, and what came of it.

Belongs here: what the layers around the answers tell each other. Does not belong here: the request itself (`call`).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from dicom_assets.serve.served import Scope

UNKNOWN = "none"
"""The route of a request that no resource answers."""


@dataclass(frozen=True)
class Caller:
    """Who asks. kind: local, token or user; `nobody` as long as nobody is known. name: of the token, or of the user.

    may_…: as permissions have them.
    """

    kind: str = "nobody"
    name: str = "-"
    scope: Scope = field(default_factory=lambda: Scope(()))
    may_store: bool = False
    may_watch: bool = False
    may_make_cohorts: bool = False


@dataclass
class Exchange:
    """One request and its answer.

    route: the template of the path, never the path. studies: UIDs that were asked for or shown, for the digests of the
    audit log alone. waited: seconds until it was its turn, None where it never was. sent: bytes of the body. is_broken:
    the answer broke off after it had begun.
    """

    method: str
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    began: float = field(default_factory=time.perf_counter)
    route: str = UNKNOWN
    source: str | None = None
    caller: Caller = field(default_factory=Caller)
    waited: float | None = None
    status: int = 0
    sent: int = 0
    is_broken: bool = False
    studies: set[str] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began


def begin(scope: Any) -> Exchange:
    """The exchange of a request that has just come in. scope: of ASGI."""
    exchange = Exchange(scope["method"])
    scope.setdefault("state", {})["exchange"] = exchange
    return exchange


def exchange_of(scope: Any) -> Exchange:
    """The exchange of a request. scope: of ASGI."""
    found: Exchange = scope["state"]["exchange"]
    return found
