"""Browsers of people who have shown a token: a signed cookie that stands for it.

Belongs here: what the cookie holds, and whom it stands for. Does not belong here: tokens (`access`), the page that
takes one.

The cookie holds the name of the token, until when it holds, and a MAC whose key is made from the token itself: so all
processes of a server, and several servers with the same tokens, know it, and with a token that is changed all of its
cookies end. It is given with HttpOnly and SameSite=Strict: no script reads it, and no page elsewhere makes a browser
send it. Who is known by a cookie may look, and not store.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import replace

from dicom_assets.serve.exchange import Caller

COOKIE = "dicom_assets"
_PURPOSE = b"dicom-assets: a signed-in browser"
_BETWEEN = "~"
"""Stands in no name of a token."""


class Sessions:
    """The cookies of one server. tokens: digest of each, and whom it stands for. seconds: how long a cookie holds."""

    def __init__(self, tokens: Sequence[tuple[bytes, Caller]], seconds: float) -> None:
        """Nothing is kept of who has signed in."""
        self.seconds = int(seconds)
        self._by_name = {caller.name: (_key(digest), caller) for digest, caller in tokens}

    def cookie_of(self, name: str, now: float | None = None) -> str:
        """The value of a cookie for a token. name: of the token, which has been shown."""
        until = str(int((time.time() if now is None else now) + self.seconds))
        return _BETWEEN.join((name, until, self._mac(name, until)))

    def caller(self, cookies: str, now: float | None = None) -> Caller | None:
        """Whom a header Cookie stands for; None where it holds no cookie of this server that still holds."""
        name, _, rest = _value(cookies).partition(_BETWEEN)
        until, _, mac = rest.partition(_BETWEEN)
        if name not in self._by_name or not (until.isascii() and until.isdigit() and len(until) < 16):
            return None
        if not hmac.compare_digest(self._mac(name, until).encode(), mac.encode("utf-8", "surrogatepass")):
            return None
        if int(until) <= (time.time() if now is None else now):
            return None
        return replace(self._by_name[name][1], may_store=False)

    def _mac(self, name: str, until: str) -> str:
        key, _ = self._by_name[name]
        return hmac.new(key, f"{name}{_BETWEEN}{until}".encode(), hashlib.sha256).hexdigest()


def _key(digest: bytes) -> bytes:
    return hmac.new(digest, _PURPOSE, hashlib.sha256).digest()


def _value(cookies: str) -> str:
    """The value of our cookie, empty where there is none."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return next((value.strip('"') for name, _, value in pairs if name == COOKIE), "")
