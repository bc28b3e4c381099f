"""Who asks, and what they may see: tokens, a declared proxy, or this machine alone.

Belongs here: telling callers apart, the Host header, the address by which a client reached the server. Does not belong
here: how a scope is held (`served.Scope`), how much somebody may ask (`limits`).

A server on a loopback address needs nothing, as long as neither tokens nor a proxy are set: then only those who are on
this machine reach it. A page elsewhere could reach it, too, by a name that it lets resolve to 127.0.0.1; so the Host
header must name this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers

from dicom_assets.sections import SettingsError
from dicom_assets.serve.exchange import Caller
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.served import Scope
from dicom_assets.serve.sessions import Sessions
from dicom_assets.serve_settings import Permission, ProxySettings, ServeSettings

SHORTEST_TOKEN = 16
"""Characters; `openssl rand -hex 32` gives 64."""

_LONGEST_USER = 128


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """Who may see what. Raises SettingsError for tokens that cannot be used, and where a host needs some."""

    def __init__(self, settings: ServeSettings, host: str, environment: Mapping[str, str]) -> None:
        """host: the address that is listened on."""
        self._settings = settings
        self._is_local = is_loopback(host)
        if not self._is_local and not settings.is_controlled:
            raise SettingsError(
                f"Everybody who reaches {host} would see every patient. Set [[serve.tokens]] or [serve.proxy] in the "
                "settings (docs/dicomweb.md), or listen on 127.0.0.1."
            )
        self._names = {_bare(one) for one in settings.hosts}
        if self._is_local:
            self._names |= {"localhost", "127.0.0.1", "[::1]", _bare(f"[{host}]" if ":" in host else host)}
        self._tokens = _tokens(settings, environment)
        self.sessions = Sessions(self._tokens, settings.session_hours * 3_600)
        self._proxies = [ipaddress.ip_network(one) for one in settings.proxy.addresses] if settings.proxy else []

    def check_host(self, headers: Headers) -> None:
        """Raises Refusal (400, 421) for a request that was meant for another host."""
        host = headers.get("host")
        if not host:
            raise Refusal(400, "The Host header is missing.")
        forwarded = headers.get("x-forwarded-host") if self._names and self._settings.hosts else None
        for one in (host, forwarded):
            if self._names and one is not None and _bare(one) not in self._names:
                raise Refusal(
                    421, "This server does not answer under that name. Names are set by `hosts` in the section [serve]."
                )

    def caller(self, address: str | None, headers: Headers) -> Caller:
        """Who asks. address: where the request comes from. Raises Refusal (401)."""
        if not self._settings.is_controlled:
            return Caller("local", "local", Scope(), may_store=True, may_watch=True, may_make_cohorts=True)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (found := self._of_token(given.strip())) is not None:
            return found
        proxy = self._settings.proxy
        if proxy is not None and self.is_proxy(address) and (user := headers.get(proxy.user_header, "").strip()):
            return _caller("user", _printable(user), proxy)
        if (signed_in := self.sessions.caller(headers.get("cookie", ""))) is not None:
            return signed_in
        raise Refusal(401, "Say who you are: a bearer token is needed here.", {"WWW-Authenticate": "Bearer"})

    @property
    def takes_tokens(self) -> bool:
        """Whether somebody can sign in by a token."""
        return bool(self._tokens)

    def sign_in(self, token: str) -> Caller | None:
        """Whom a token stands for; None where it is none."""
        return self._of_token(token.strip())

    def _of_token(self, given: str) -> Caller | None:
        """Every token is compared, each in a time that does not depend on what was given."""
        digest, found = _digest(given), None
        for known, caller in self._tokens:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def is_proxy(self, address: str | None) -> bool:
        """Whether a request comes from the declared proxy."""
        try:
            here = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(here in one for one in self._proxies)

    def reached_at(self, address: str | None, scheme: str, headers: Headers, port: int | None = None) -> str:
        """The address by which the client reached the server, such as `https://pacs.example.org/imaging`.

        What a declared proxy forwards counts, of anybody else it is not read. port: that the server listens on; some
        clients leave it out of the header Host (dicomweb-client does), which on this machine can mean no other one.
        """
        host, prefix = headers.get("host", ""), ""
        if port not in (None, _DEFAULT_PORTS.get(scheme)) and host in _LOOPBACK:
            host = f"{host}:{port}"
        if self.is_proxy(address):
            scheme = _first(headers.get("x-forwarded-proto")) or scheme
            host = _first(headers.get("x-forwarded-host")) or host
            prefix = _first(headers.get("x-forwarded-prefix")).rstrip("/")
        return f"{scheme}://{host}{prefix}"


_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def _tokens(settings: ServeSettings, environment: Mapping[str, str]) -> list[tuple[bytes, Caller]]:
    tokens: list[tuple[bytes, Caller]] = []
    for one in settings.tokens:
        value = environment.get(one.variable, "").strip()
        if len(value) < SHORTEST_TOKEN:
            raise SettingsError(
                f"Token '{one.name}': the environment variable {one.variable} must hold at least {SHORTEST_TOKEN} "
                "characters; `openssl rand -hex 32` makes a token."
            )
        if any(hmac.compare_digest(known, _digest(value)) for known, _ in tokens):
            raise SettingsError(f"Token '{one.name}': the environment variable of another token holds the same.")
        tokens.append((_digest(value), _caller("token", one.name, one)))
    return tokens


def permissions(settings: ServeSettings) -> list[tuple[str, Permission]]:
    """Everybody whose permission is set, by how they are called in messages."""
    found: list[tuple[str, Permission]] = [(f"Token '{one.name}'", one) for one in settings.tokens]
    proxy: ProxySettings | None = settings.proxy
    return [*found, ("[serve.proxy]", proxy)] if proxy else found


def _caller(kind: str, name: str, permission: Permission) -> Caller:
    scope = Scope(permission.sources, permission.condition)
    return Caller(kind, name, scope, permission.may_store, permission.may_watch, permission.may_make_cohorts)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _bare(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdigit() and not (":" in name and not name.endswith("]")) else host.strip().lower()


def _first(forwarded: str | None) -> str:
    return (forwarded or "").split(",")[0].strip()


def _printable(user: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in user[:_LONGEST_USER])
