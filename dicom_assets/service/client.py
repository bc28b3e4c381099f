"""Requests to one service over HTTP: connections, time limits, retries, credentials, bounds.

Belongs here: everything that is the same for every request. Does not belong here: what is asked for and what the
answer means (`feed`, `dicomweb`, `push`).
"""

from __future__ import annotations

import email.utils
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from dicom_assets.collector import held_back
from dicom_assets.service.errors import (
    AnswerInvalid,
    AnswerTooLarge,
    RedirectRefused,
    ServiceError,
    ServiceRefused,
    ServiceUnavailable,
    ServiceUnreachable,
    clean_reason,
)
from dicom_assets.service.paths import resource
from dicom_assets.service.tokens import Credentials, credentials_for
from dicom_assets.settings import ServiceSettings

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the request itself, so that it is worth sending again."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_MOST_REDIRECTS = 3
_ERROR_BODY = 16_384
_WHOLE_ANSWER = 10
"""A whole answer may take so many times `read_seconds`, which bounds the silence between two parts of it."""

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines hold URLs, and URLs of DICOMweb hold UIDs


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was accepted. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    service: str
    what: str

    def json(self) -> Any:
        """The body as JSON; None when there is none. Raises AnswerInvalid."""
        if not self.body:
            return None
        try:
            with held_back():
                return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise AnswerInvalid(self.service, self.what, "The body is not JSON.", self.status) from None

    def objects(self) -> list[dict[str, Any]]:
        """The body as a list of JSON objects; empty when there is no body. Raises AnswerInvalid."""
        found = self.json()
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise AnswerInvalid(self.service, self.what, "The body is not a list of objects.", self.status)
        return found


class ServiceClient:
    """One service. Safe to use from several threads; closes its connections at the end of a `with` block.

    transport, sleep and chance (a number from 0 to 1) can be replaced, so that tests need no time.
    """

    def __init__(
        self,
        service: ServiceSettings,
        credentials: Credentials | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Connects to nothing yet."""
        self.service = service
        self.name = service.name
        self._base = re.sub(r"/v[12]$", "", service.url) if service.kind == "dicom-service" else service.url
        self._credentials = credentials or credentials_for(service)
        self._sleep, self._chance = sleep, chance
        self._http = httpx.Client(
            timeout=httpx.Timeout(service.read_seconds, connect=service.connect_seconds),
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=60.0),
            follow_redirects=False,
            transport=transport,
            headers={"User-Agent": "dicom-assets"},
        )

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Closes the connections."""
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def clock(self, reply: Reply) -> datetime:
        """The server's time when it gave an answer (RFC 9110 6.6.1); ours where it does not tell."""
        try:
            return email.utils.parsedate_to_datetime(reply.headers.get("date", "")).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            return datetime.now(UTC)

    def dicomweb(self, path: str, partition: str | None = None) -> str:
        """Path of a DICOMweb resource (see `paths`): below the version, and the data partition if one is named."""
        if self.service.kind == "dicomweb":
            return path
        below = f"{resource(self.name, 'partitions', partition)}/" if partition else ""
        return f"{self.service.api}/{below}{path}"

    def get(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        what: str,
        accept: str = "application/json",
        accepted: tuple[int, ...] = (200, 204),
        quote: bool = False,
    ) -> Reply:
        """GET of a path below the service's url, or of a URL that its settings name.

        what: the request in words, without patient data, for errors. accepted: statuses that are answers; any other
        is an error. quote: whether the words of an error's body may be repeated, cleaned, in its message. Raises
        ServiceError and its kinds.
        """
        return self._send("GET", path, dict(params or {}), None, {"Accept": accept}, what, accepted, quote)

    def post(
        self,
        path: str,
        body: Callable[[], Any],
        content_type: str,
        *,
        what: str,
        length: int,
        accepted: tuple[int, ...] = (200,),
    ) -> Reply:
        """POST. body: makes the content, `length` bytes, anew for each try: bytes, or an iterator of them."""
        headers = {"Accept": "application/dicom+json", "Content-Type": content_type, "Content-Length": str(length)}
        return self._send("POST", path, {}, body, headers, what, accepted, False)

    def reach(self) -> None:
        """Asks for nothing but a connection, once; whatever is answered is right. Raises ServiceUnreachable.

        For whoever has much to send, and need not wait through the tries of each request to learn that nobody is there.
        """
        try:
            self._http.request("OPTIONS", self._base, headers={"Accept": "*/*"})
        except httpx.ConnectError as error:
            raise ServiceUnreachable(
                self.name, "connecting", f"No connection could be made ({error}). Check the url, and that it runs."
            ) from None
        except httpx.TransportError:
            return  # it is there; the requests themselves say what is wrong

    def _send(
        self,
        method: str,
        path: str,
        params: dict[str, str | int],
        body: Callable[[], Any] | None,
        headers: dict[str, str],
        what: str,
        accepted: tuple[int, ...],
        quote: bool,
    ) -> Reply:
        """One request with its retries and redirects."""
        url = httpx.URL(path if "://" in path else f"{self._base}/{path.lstrip('/')}")
        url = url.copy_merge_params(params) if params else url
        tries, redirects, renewed = 0, 0, False
        while True:
            try:
                status, received, content = self._once(method, url, body, headers, what, accepted)
            except httpx.UnsupportedProtocol:
                raise ServiceError(self.name, what, "The service's url is no http or https URL.") from None
            except httpx.TransportError as error:
                self._wait(tries, None, what, None, f"The connection broke ({type(error).__name__}).")
                tries += 1
                continue
            if status in accepted:
                return Reply(status, received, content, self.name, what)
            if status in _REDIRECTS and method == "GET" and redirects < _MOST_REDIRECTS:
                url = self._redirected(url, received.get("location", ""), status, what)
                redirects += 1
                continue
            if status == 401 and not renewed and self._credentials.renew():
                renewed = True
                continue
            reason = clean_reason(content, received.get("content-type", "")) if quote else ""
            if status in RETRIED:
                self._wait(tries, received.get("retry-after"), what, status, reason)
                tries += 1
                continue
            if status in (401, 403):
                raise ServiceRefused(self.name, what, f"{reason} {_remedy(status)}".strip(), status)
            raise ServiceError(self.name, what, f"{reason} {_remedy(status)}".strip(), status)

    def _once(
        self,
        method: str,
        url: httpx.URL,
        body: Callable[[], Any] | None,
        headers: dict[str, str],
        what: str,
        accepted: tuple[int, ...],
    ) -> tuple[int, dict[str, str], bytes]:
        """One exchange; reads at most the bound, counted after decompression."""
        deadline = time.monotonic() + _WHOLE_ANSWER * self.service.read_seconds
        authorization = self._credentials.header()
        if authorization is not None:
            headers = {**headers, "Authorization": authorization}
        with self._http.stream(method, url, headers=headers, content=body() if body else None) as response:
            received = {name.lower(): value for name, value in response.headers.items()}
            good = response.status_code in accepted
            content = bytearray()
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer drips")
                if not good and len(content) > _ERROR_BODY:
                    break
                if len(content) > self.service.page_bytes:
                    limit = f"The answer is larger than page_bytes ({self.service.page_bytes} bytes)."
                    raise AnswerTooLarge(self.name, what, limit, response.status_code)
            return response.status_code, received, bytes(content)

    def _redirected(self, url: httpx.URL, location: str, status: int, what: str) -> httpx.URL:
        try:
            target = url.join(location)
        except httpx.InvalidURL:
            target = httpx.URL("")
        if not location or (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
            raise RedirectRefused(self.name, what, "It points to another host, which is not followed.", status)
        return target

    def _wait(self, tries: int, retry_after: str | None, what: str, status: int | None, reason: str) -> None:
        """Waits before the next try, or raises ServiceUnavailable when there have been enough."""
        asked = _seconds(retry_after)
        if tries >= self.service.retries:
            raise ServiceUnavailable(
                self.name,
                what,
                f"{reason} Gave up after {tries + 1} tries, the last one until "
                f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC. {_remedy(status)}".strip(),
                status,
            )
        if asked is not None and asked > self.service.retry_after_seconds:
            said = f"It asks to wait {asked:.0f} s, longer than retry_after_seconds allows: try again then."
            raise ServiceUnavailable(self.name, what, f"{reason} {said}".strip(), status)
        backoff = min(_LONGEST_WAIT, _FIRST_WAIT * 2**tries) * (0.5 + 0.5 * self._chance())
        self._sleep(backoff if asked is None else asked + backoff * self._chance())


def _remedy(status: int | None) -> str:
    """What to do about a status that ended a request, "" where nothing can be said; None: there was no answer."""
    match status:
        case None:
            return "Check the url, and that the service runs."
        case 401 | 403:
            asked = "Azure Health Data Services asks for the role DICOM Data Reader"
            return f"Check the credentials and their rights; {asked}."
        case 404:
            return "Check the url: the service has nothing at this address."
        case 429 | 503:
            return "It is busy, or down for a while: try again later."
        case _ if status >= 500:
            return "The fault is the service's own: its log says more."
    return ""


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds from now: a number or an HTTP date (RFC 9110 10.2.3); None when not understood."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
