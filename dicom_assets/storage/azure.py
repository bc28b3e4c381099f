"""Azure Storage: addresses of containers and blobs, credentials from the environment, stores made of both.

Belongs here: everything that the landing zone and the lake share about Azure. Does not belong here: what lies in a
container. Credentials stay in the environment: they are read when a connection is made, and stand in no setting, no
repr and no message.

Addresses. `az://account/container/path`, `abfss://container@account.dfs.core.windows.net/path` and
`https://account.blob.core.windows.net/container/path` name the same thing; the first form is the one that is kept.
Paths in addresses are percent-encoded. The account `devstoreaccount1` is Azurite, the emulator, at
AZURITE_BLOB_STORAGE_URL and AZURITE_QUEUE_STORAGE_URL.

Credentials of an account, first found: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_KEY,
AZURE_STORAGE_SAS_TOKEN, with `_{ACCOUNT}` behind them and then without; without any of them azure-identity's
DefaultAzureCredential (managed identity, workload identity, `az login`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import AzureError
    from azure.storage.blob import ContainerClient
    from azure.storage.queue import QueueClient
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("az", "azure", "abfs", "abfss", "https", "http")
EMULATOR = "devstoreaccount1"
# Published with the emulator, the same everywhere, and good for nothing but this machine.
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATOR_BLOB = "http://127.0.0.1:10000"
_EMULATOR_QUEUE = "http://127.0.0.1:10001"
TOKEN_SCOPE = "https://storage.azure.com/.default"  # noqa: S105 - the name of a scope, no secret

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$?[a-z0-9](?:[a-z0-9-]{1,61}[a-z0-9])")
_UNESCAPED = "/~!$'()*+,;=:@"

_STATUS = re.compile(r"status code: (\d{3})").search

Failure: TypeAlias = "BaseError | AzureError | OSError"
"""What storage raises, through whichever library."""


@cache
def failures() -> tuple[type[BaseError], type[AzureError], type[OSError]]:
    """The same for `except`, which asks once something was raised: a lake in a folder never needs the Azure SDK."""
    from azure.core.exceptions import AzureError

    return (BaseError, AzureError, OSError)


"""What obstore and the Azure SDK raise. Their messages hold names of blobs and signatures: neither goes further."""

CONNECT_SECONDS = 10
REQUEST_SECONDS = 120
RETRIES = 8
RETRY_SECONDS = 120


class AddressError(ValueError):
    """An address names no container; the message says what one looks like and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A container, or a path in it. path: plain, without `/` at either end unless the blob's name has one."""

    account: str
    container: str
    path: str = ""

    @property
    def url(self) -> str:
        """`az://account/container/path`, the path percent-encoded."""
        tail = "/" + quote(self.path, safe=_UNESCAPED) if self.path else ""
        return f"az://{self.account}/{self.container}{tail}"

    def below(self, path: str) -> Place:
        """The place of a path below this one."""
        return Place(self.account, self.container, f"{self.path}/{path}" if self.path else path)


def parse(address: str) -> Place:
    """The place that an address of any of the forms names. Raises AddressError."""
    parts = urlsplit(address)
    if parts.query or parts.fragment:
        raise AddressError(
            "an address takes no query: put a shared access signature into AZURE_STORAGE_SAS_TOKEN, and write # and ? "
            "in a path as %23 and %3F"
        )
    host, path = parts.netloc, unquote(parts.path).lstrip("/")
    if parts.scheme in ("abfs", "abfss"):
        container, separator, domain = host.partition("@")
        account = domain.split(".")[0]
        if not separator:
            account, (container, path) = host.split(".")[0], _first(path)
    elif parts.scheme in ("http", "https"):
        account, (container, path) = host.split(".")[0], _first(path)
        if "." not in host or host.startswith("127.") or host.partition(":")[0] == "localhost":
            account, (container, path) = container, _first(path)  # the emulator names the account in the path
    elif parts.scheme in ("az", "azure"):
        account, (container, path) = host, _first(path)
    else:
        raise AddressError("not an address of Azure Storage")
    if not _ACCOUNT.fullmatch(account) or not _CONTAINER.fullmatch(container):
        raise AddressError(
            "expected az://account/container/path or abfss://container@account.dfs.core.windows.net/path"
        )
    return Place(account, container, path)


def parse_folder(address: str) -> Place:
    """As `parse`, for a folder: a `/` at the end means nothing."""
    place = parse(address)
    return Place(place.account, place.container, place.path.strip("/"))


def _first(path: str) -> tuple[str, str]:
    head, _, tail = path.partition("/")
    return head, tail


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """How to sign requests to one account. secret: None where tokens of Entra ID are fetched."""

    kind: Literal["key", "sas", "token"]
    secret: str | None = None


def credential(account: str, environment: Mapping[str, str] = os.environ) -> Credential:
    """The credential of an account; see the module. The emulator has its own, unless variables name its account."""
    if account == EMULATOR:
        return _from_variables(account, f"_{account.upper()}", environment) or Credential("key", _EMULATOR_KEY)
    named = environment.get("AZURE_STORAGE_ACCOUNT_NAME", account) == account
    for suffix in (f"_{account.upper()}", "") if named else (f"_{account.upper()}",):
        found = _from_variables(account, suffix, environment)
        if found is not None:
            return found
    text = environment.get("AZURE_STORAGE_CONNECTION_STRING", "")
    return _from_connection_string(text, account) or Credential("token")


def _from_variables(account: str, suffix: str, environment: Mapping[str, str]) -> Credential | None:
    found = _from_connection_string(environment.get(f"AZURE_STORAGE_CONNECTION_STRING{suffix}", ""), account)
    if found is not None:
        return found
    key = environment.get(f"AZURE_STORAGE_ACCOUNT_KEY{suffix}")
    if key:
        return Credential("key", key)
    signature = environment.get(f"AZURE_STORAGE_SAS_TOKEN{suffix}")
    return Credential("sas", signature.lstrip("?")) if signature else None


def _from_connection_string(text: str, account: str) -> Credential | None:
    """The credential of a connection string; None when it is for another account, or holds none."""
    fields = {name.strip().lower(): value.strip() for name, _, value in (f.partition("=") for f in text.split(";"))}
    if fields.get("accountname", account) != account:
        return None
    if fields.get("accountkey"):
        return Credential("key", fields["accountkey"])
    signature = fields.get("sharedaccesssignature")
    return Credential("sas", signature.lstrip("?")) if signature else None


@lru_cache(maxsize=1)
def entra() -> TokenCredential:
    """azure-identity's DefaultAzureCredential, one for the process."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@lru_cache(maxsize=1)
def storage_token() -> Callable[[], str]:
    """What gives a token for storage; azure-identity keeps it and fetches another one before it ends."""
    from azure.identity import get_bearer_token_provider

    return get_bearer_token_provider(entra(), TOKEN_SCOPE)


def endpoint(account: str, service: Literal["blob", "queue"]) -> str:
    """URL of an account's blob or queue service. AZURE_STORAGE_ENDPOINT_SUFFIX: for sovereign clouds."""
    if account == EMULATOR:
        fallback = _EMULATOR_BLOB if service == "blob" else _EMULATOR_QUEUE
        base = os.environ.get(f"AZURITE_{service.upper()}_STORAGE_URL", fallback)
        return f"{base.rstrip('/')}/{EMULATOR}"
    suffix = os.environ.get("AZURE_STORAGE_ENDPOINT_SUFFIX", "core.windows.net")
    return f"https://{account}.{service}.{suffix}"


def object_store(place: Place, retry_seconds: float = RETRY_SECONDS) -> AzureStore:
    """An obstore store whose root is the place.

    Throttling (429, 503) and broken connections are retried within `retry_seconds`, with growing, jittered pauses. A
    connection is waited for no longer either.
    """
    retry: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=retry_seconds),
        "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=20), "base": 2},
    }
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, retry_seconds)),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }
    config: dict[str, Any] = {"account_name": place.account}
    provider = None
    if place.account == EMULATOR:
        config["use_emulator"] = True
        client["allow_http"] = True
        found = credential(place.account)
        config["sas_key" if found.kind == "sas" else "account_key"] = found.secret
    else:
        config["endpoint"] = endpoint(place.account, "blob")
        found = credential(place.account)
        if found.kind == "key":
            config |= {"account_key": found.secret, "credential_type": "access_key"}
        elif found.kind == "sas":
            config |= {"sas_key": found.secret, "credential_type": "sas_token"}
        else:
            from obstore.auth.azure import AzureCredentialProvider

            provider = AzureCredentialProvider(entra())  # type: ignore[arg-type]
    return AzureStore(
        place.container,
        prefix=place.path or None,
        config=config,  # type: ignore[arg-type]
        client_options=client,
        retry_config=retry,
        credential_provider=provider,
    )


def delta_location(place: Place) -> str:
    """The place as delta-rs wants it: without the account, and not percent-encoded."""
    return f"az://{place.container}/{place.path}"


def delta_options(place: Place) -> dict[str, str]:
    """What delta-rs is told about an account. A token is asked for with each call, so it is valid for a while."""
    if place.account == EMULATOR:
        # Account and endpoint instead of this make delta-rs fail: the emulator ignores where a listing is to start.
        return {"azure_storage_use_emulator": "true"}
    options = {"azure_storage_account_name": place.account, "azure_storage_endpoint": endpoint(place.account, "blob")}
    found = credential(place.account)
    if found.kind == "key":
        options["azure_storage_account_key"] = found.secret or ""
    elif found.kind == "sas":
        options["azure_storage_sas_token"] = found.secret or ""
    else:
        options["azure_storage_token"] = storage_token()()
    return options


def container_client(place: Place) -> ContainerClient:
    """The Azure SDK's client of a container, for what obstore cannot do: leases, conditional copies, odd names."""
    from azure.storage.blob import ContainerClient, ExponentialRetry

    return ContainerClient(
        endpoint(place.account, "blob"),
        place.container,
        credential=_sdk_credential(place.account),
        # The SDK's own pauses begin with 15 s, which is a quarter of a sensor's tick.
        retry_policy=ExponentialRetry(initial_backoff=0, increment_base=2, retry_total=5),
        connection_timeout=CONNECT_SECONDS,
        read_timeout=REQUEST_SECONDS,
    )


def queue_client(account: str, queue: str) -> QueueClient:
    """The Azure SDK's client of a queue."""
    from azure.storage.queue import ExponentialRetry, QueueClient

    return QueueClient(
        endpoint(account, "queue"),
        queue,
        credential=_sdk_credential(account),
        retry_policy=ExponentialRetry(initial_backoff=0, increment_base=2, retry_total=3),
        connection_timeout=CONNECT_SECONDS,
    )


def _sdk_credential(account: str) -> Any:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    found = credential(account)
    if found.kind == "key":
        return AzureNamedKeyCredential(account, found.secret or "")
    if found.kind == "sas":
        return AzureSasCredential(found.secret or "")
    return entra()


_BY_TYPE: tuple[tuple[type[BaseException], int], ...] = (
    (NotFoundError, 404),
    (FileNotFoundError, 404),
    (PreconditionError, 412),
    (AlreadyExistsError, 409),
    (FileExistsError, 409),
    (UnauthenticatedError, 401),
    (PermissionDeniedError, 403),
    (PermissionError, 403),
)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a failure came with; None when there was no answer, or none that is known."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status
    for kind, meaning in _BY_TYPE:
        if isinstance(error, kind):
            return meaning
    found = _STATUS(str(error))
    return int(found[1]) if found else None


def reason(error: BaseException, role: str) -> str:
    """Why storage fails and what to do, in words that name no blob. role: what is needed on the container."""
    status = status_of(error)
    text = str(error)
    if status == 401 or "CredentialUnavailable" in text or type(error).__name__ == "ClientAuthenticationError":
        return "not signed in; set credentials in the environment, or run az login"
    if status == 403:
        return f"permission denied; the role {role} on the container is needed"
    if status in (429, 503):
        return "the storage is throttling, and went on for as long as it was tried again"
    if status is not None:
        return f"it answers {status}"
    if "error sending request" in text or "onnection" in type(error).__name__ + text or "timed out" in text:
        return "it cannot be reached"
    return type(error).__name__
