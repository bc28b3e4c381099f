"""Which representation a client gets of those that can be given: media types and what they are negotiated by.

Belongs here: reading `Accept` and the parameter `accept` (PS3.18 8.7.4 and 8.7.5, RFC 9110 12.5.1), and choosing. Does
not belong here: making a representation.

Clients write `type=` of multipart/related with and without quotation marks, and mean by no `transfer-syntax`, as by
`*`, what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from starlette.requests import Request

from dicom_assets.serve.problems import not_acceptable

OCTETS = "application/octet-stream"
DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
ZIP = "application/zip"
RELATED = "multipart/related"

_PIECES = re.compile(r'(?:[^",;]|"(?:[^"\\]|\\.)*")+|[,;]')
_QUOTED = re.compile(r"\\(.)")
_MOST = 4_000
"""Characters of a list of media types that are looked at."""


class Range(NamedTuple):
    """A media type that a client accepts, with wildcards.

    is_multipart: as parts of a multipart/related answer. transfer_syntax: None for any. quality: 0 to 1.
    """

    kind: str
    is_multipart: bool
    transfer_syntax: str | None
    quality: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation that can be given.

    transfer_syntaxes: those that it is in, whichever of them is asked for; the first one is told. single, multipart:
    how it can be given; multipart is the default where both can be.
    """

    kind: str
    transfer_syntaxes: tuple[str, ...] = ()
    single: bool = True
    multipart: bool = False


class Choice(NamedTuple):
    """What the client gets. transfer_syntax: as it is told, the one that was asked for if it was."""

    offer: Offer
    is_multipart: bool
    transfer_syntax: str | None


def ranges(request: Request) -> list[Range]:
    """What a request accepts, best first: of its parameter `accept`, or else of its headers; `*/*` where it says none.

    What is no media type is left out.
    """
    asked = request.query_params.getlist("accept")
    # A plus sign that was not encoded in a query has become a space.
    texts = [one.replace("dicom json", "dicom+json") for one in asked] or request.headers.getlist("accept")
    found = _parsed(",".join(texts)[:_MOST]) if texts else [Range("*/*", False, None, 1.0)]
    return sorted(found, key=lambda one: -one.quality)


def choose(accepted: Sequence[Range], offers: Sequence[Offer]) -> Choice:
    """The best representation of those that can be given, the first one among equals. Raises Refusal (406)."""
    refused = {one.kind for one in accepted if one.quality == 0}
    for one in accepted:
        for offer in offers if one.quality > 0 else ():
            if _matches(one.kind, offer.kind) and offer.kind not in refused:
                syntax = _syntax(one, offer)
                form = _form(one, offer)
                if syntax is not False and form is not None:
                    return Choice(offer, form, syntax)
    raise not_acceptable(", ".join(dict.fromkeys(_written(one) for one in offers)))


def _matches(wanted: str, offered: str) -> bool:
    return wanted in ("*/*", offered) or (wanted.endswith("/*") and offered.startswith(wanted[:-1]))


def _form(wanted: Range, offer: Offer) -> bool | None:
    """Whether it comes as multipart; None where it cannot be had as it is wanted."""
    if wanted.is_multipart:
        return True if offer.multipart else None
    if wanted.kind == "*/*" and offer.multipart:
        return True
    return False if offer.single else None


def _syntax(wanted: Range, offer: Offer) -> str | Literal[False] | None:
    """The transfer syntax that is told; False where it is another one than is wanted."""
    if wanted.transfer_syntax is None or not offer.transfer_syntaxes:
        return offer.transfer_syntaxes[0] if offer.transfer_syntaxes else None
    return wanted.transfer_syntax if wanted.transfer_syntax in offer.transfer_syntaxes else False


def _written(offer: Offer) -> str:
    return f'{RELATED}; type="{offer.kind}"' if offer.multipart and not offer.single else offer.kind


def _parsed(text: str) -> list[Range]:
    found: list[Range] = []
    words: list[str] = []
    for piece in [*_PIECES.findall(text), ","]:
        if piece == ",":
            found += _range(words)
            words = []
        elif piece != ";":
            words.append(piece.strip())
    return found


def _range(words: Sequence[str]) -> Iterable[Range]:
    if not words or "/" not in words[0]:
        return ()
    kind = words[0].lower()
    said = {
        name.strip().lower(): _unquoted(value.strip()) for name, _, value in (one.partition("=") for one in words[1:])
    }
    try:
        quality = min(max(float(said.get("q", "1")), 0.0), 1.0)
    except ValueError:
        quality = 1.0
    syntax = said.get("transfer-syntax")
    syntax = None if syntax in (None, "", "*") else syntax
    if kind == RELATED:
        return (Range(said.get("type", "*/*").lower(), True, syntax, quality),)
    return (Range(kind, False, syntax, quality),)


def _unquoted(value: str) -> str:
    return _QUOTED.sub(r"\1", value[1:-1]) if len(value) > 1 and value[0] == value[-1] == '"' else value
