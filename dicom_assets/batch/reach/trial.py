"""A trial: steps that are tried one after another, each with its outcome, its time and what was found.

Belongs here: outcomes, and how a step comes to its own. Does not belong here: what is tried.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import httpx

from dicom_assets.settings import UserError

REACH_SECONDS = 10.0
"""How long an answer is waited for before a host counts as out of reach."""


class Result(StrEnum):
    """What became of a step."""

    OK = "ok"
    FAILS = "FAILS"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. subject: the place in words. seconds: None for what was not tried. detail: without names of objects."""

    subject: str
    name: str
    result: Result
    seconds: float | None
    detail: str


class Refused(Exception):
    """A step failed; the message says why, and which right is missing."""


def say_nothing(_: Step) -> None:
    """Tells nobody."""


@dataclass
class Trial:
    """The steps of one place. told: called with each as it ends."""

    subject: str
    told: Callable[[Step], None] = say_nothing
    steps: list[Step] = field(default_factory=list)

    def step(self, name: str, action: Callable[[], str], *, after: bool = True) -> bool:
        """Tries one step; whether it succeeded. after: whether what it needs did, otherwise it is not tried."""
        if not after:
            self.leave(name, "needs what failed")
            return False
        begun = time.perf_counter()
        try:
            result, detail = Result.OK, action()
        except (Refused, UserError) as error:
            result, detail = Result.FAILS, str(error)
        self._enter(Step(self.subject, name, result, time.perf_counter() - begun, detail))
        return result is Result.OK

    def leave(self, name: str, why: str) -> None:
        """Notes a step that is not tried."""
        self._enter(Step(self.subject, name, Result.NOT_TRIED, None, why))

    def _enter(self, step: Step) -> None:
        self.steps.append(step)
        self.told(step)


def answer(url: str) -> str:
    """Whether anybody answers at a URL, whatever the answer; nothing that signs is sent. Raises Refused."""
    host = httpx.URL(url).host
    try:
        response = httpx.get(url, timeout=REACH_SECONDS, follow_redirects=False)
    except httpx.TimeoutException:
        raise Refused(
            f"{host} gave no answer within {REACH_SECONDS:.0f} s: see firewalls and private endpoints"
        ) from None
    except httpx.TransportError as error:
        raise Refused(f"{host} {_trouble(error)}") from None
    return f"{host} answers" + (f" ({response.status_code})" if response.status_code >= 500 else "")


def _trouble(error: BaseException) -> str:
    for one in _causes(error):
        if isinstance(one, socket.gaierror):
            return "is a name that nobody knows: correct it, or see the DNS of this machine"
        if isinstance(one, ssl.SSLError):
            return "has a certificate that this machine does not accept"
        if isinstance(one, ConnectionRefusedError):
            return "refuses connections: nobody listens at this port"
    text = str(error)
    if "Name or service not known" in text or "name resolution" in text or "No address" in text:
        return "is a name that nobody knows: correct it, or see the DNS of this machine"
    if "CERTIFICATE" in text:
        return "has a certificate that this machine does not accept"
    if "refused" in text:
        return "refuses connections: nobody listens at this port"
    return f"cannot be reached ({type(error).__name__})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def system_errors(doing: str, remedy: str) -> Iterator[None]:
    """Passes errors of the operating system on as Refused, without the path that they hold."""
    try:
        yield
    except OSError as error:
        raise Refused(f"{doing}: {error.strerror or type(error).__name__}. {remedy}") from None
