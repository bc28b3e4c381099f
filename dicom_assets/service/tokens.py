"""How a request says who it comes from: not at all, with a token, with a password, with a token of Entra ID.

Belongs here: reading secrets from the environment. Does not belong here: which service uses which (settings), keeping
tokens (azure-identity does), the requests themselves (`client`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from dicom_assets.service.errors import CredentialsMissing
from dicom_assets.settings import ServiceSettings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


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
    """A token of Entra ID. azure-identity keeps it and fetches another one before it ends."""

    def __init__(self, service: ServiceSettings, credential: Callable[[], TokenCredential] | None = None) -> None:
        """Asks for nothing yet.

        credential: makes one; by default azure-identity's chain: environment, workload or managed identity, then the
        Azure CLI.
        """
        self._service = service
        self._credential = credential or _default_credential
        self._token: Callable[[], str] | None = None

    def header(self) -> str | None:
        """`Bearer …` with a token that is good for a while."""
        from azure.core.exceptions import AzureError
        from azure.identity import get_bearer_token_provider

        if self._token is None:
            self._token = get_bearer_token_provider(self._credential(), self._service.scope)
        try:
            return f"Bearer {self._token()}"
        except AzureError as error:
            raise CredentialsMissing(
                self._service.name,
                "a token of Entra ID",
                f"azure-identity found no usable credential ({type(error).__name__}). Sign in with the Azure CLI, or "
                "give the machine an identity with the role DICOM Data Reader.",
            ) from None

    def renew(self) -> bool:
        """Forgets the credential with its tokens, so that the next request has a new one."""
        self._token = None
        return True


def _default_credential() -> TokenCredential:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def credentials_for(service: ServiceSettings, environment: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials that the settings name. Nothing is asked for until the first request."""
    if service.auth == "anonymous":
        return Anonymous()
    if service.auth == "entra":
        return Entra(service)
    return FromEnvironment(service, environment)
