"""How a request says who it comes from: not at all, with a token, with a password, with a token of Entra ID.

Belongs here: reading secrets from the environment and keeping a token fresh. Does not belong here: which service uses
which (settings), the requests themselves (`client`).
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dicom_assets.service.errors import CredentialsMissing
from dicom_assets.settings import ServiceSettings

RENEW_BEFORE_SECONDS = 300.0
"""A token that ends sooner than this is replaced before it is used."""


class Credentials(Protocol):
    """Who a request comes from."""

    def header(self) -> str | None:
        """Value of the Authorization header now; None for none. Raises CredentialsMissing."""
        ...

    def renew(self) -> bool:
        """Drops what the server has just refused; whether something else may be tried."""
        ...


class Anonymous:
    """No credentials."""

    def header(self) -> str | None:
        """None."""
        return None

    def renew(self) -> bool:
        """There is nothing else to try."""
        return False


class FromEnvironment:
    """A token, or a user and a password, from environment variables, read anew for each request."""

    def __init__(self, service: ServiceSettings, environment: Mapping[str, str]) -> None:
        """Takes names of variables from the service's settings."""
        self._service, self._environment = service, environment

    def header(self) -> str | None:
        """`Bearer …` or `Basic …` (RFC 6750, RFC 7617)."""
        if self._service.auth == "bearer":
            return f"Bearer {self._variable(self._service.token_variable)}"
        pair = f"{self._variable(self._service.user_variable)}:{self._variable(self._service.password_variable)}"
        return "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")

    def renew(self) -> bool:
        """There is nothing else to try."""
        return False

    def _variable(self, name: str | None) -> str:
        value = self._environment.get(name or "", "").strip()
        if not value:
            raise CredentialsMissing(self._service.name, "credentials", f"Set the environment variable {name}.")
        return value


class Entra:
    """A token of Entra ID, kept until shortly before it ends.

    get_token: takes the scope, returns an object with `token` and `expires_on` (seconds since 1970), as credentials
    of azure-identity do.
    """

    def __init__(
        self, service: ServiceSettings, get_token: Callable[[str], Any], now: Callable[[], float] = time.time
    ) -> None:
        """Asks for nothing yet."""
        self._service, self._get_token, self._now = service, get_token, now
        self._token: str | None = None
        self._ends = 0.0

    def header(self) -> str | None:
        """`Bearer …` with a token that is good for a while."""
        if self._token is None or self._ends - self._now() < RENEW_BEFORE_SECONDS:
            access = self._get_token(self._service.scope)
            self._token, self._ends = str(access.token), float(access.expires_on)
        return f"Bearer {self._token}"

    def renew(self) -> bool:
        """Forgets the token, so that the next request has a new one."""
        self._token = None
        return True


def credentials_for(service: ServiceSettings, environment: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials that the settings name. Nothing is asked for until the first request."""
    if service.auth == "anonymous":
        return Anonymous()
    if service.auth == "entra":
        return Entra(service, _azure_identity(service))
    return FromEnvironment(service, environment)


def _azure_identity(service: ServiceSettings) -> Callable[[str], Any]:
    """Asks azure-identity's default chain: environment, workload or managed identity, then the Azure CLI."""
    chain: list[Any] = []

    def get_token(scope: str) -> Any:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        if not chain:
            chain.append(DefaultAzureCredential(exclude_interactive_browser_credential=True))
        try:
            return chain[0].get_token(scope)
        except AzureError as error:
            raise CredentialsMissing(
                service.name,
                "a token of Entra ID",
                f"azure-identity found no usable credential ({type(error).__name__}). Sign in with the Azure CLI, or "
                "give the machine an identity with the role DICOM Data Reader.",
            ) from None

    return get_token
