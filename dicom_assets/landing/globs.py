"""Include and exclude patterns of a landing source, compiled once.

Belongs here: what a pattern matches. A pattern is compared with the whole path below the source's root, `/` between
parts, case-sensitively: `?` and `*` stay within one part, `[a-z]` and `[!a-z]` are one character, `**` as a part of
its own crosses any number of folders, none too. So `*.dcm` matches at the top only, `**/*.dcm` everywhere, `raw/**`
all below the folder raw.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Predicate = Callable[[str], bool]


def pattern_regex(pattern: str) -> str:
    """The regular expression of one pattern, for a full match."""
    parts = pattern.strip("/").split("/")
    regex = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            # The last one wants something below it: `raw/**` is not the folder `raw` itself.
            regex += "(?s:.+)" if last else "(?:[^/]+/)*"
        else:
            regex += _part_regex(part) + ("" if last else "/")
    return regex


def _part_regex(part: str) -> str:
    regex, at = "", 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            regex += "[^/]*"
        elif char == "?":
            regex += "[^/]"
        elif char == "[" and (end := part.find("]", at + (2 if part[at : at + 1] == "!" else 1))) > 0:
            inside = part[at:end]
            at = end + 1
            negated = inside.startswith("!")
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[1:] if negated else inside)
            regex += f"(?!/)[{'^' if negated else ''}{body}]"
        else:
            regex += re.escape(char)
    return regex


def _any_of(patterns: Sequence[str]) -> Predicate:
    try:
        match = re.compile("|".join(f"(?:{pattern_regex(p)})" for p in patterns)).fullmatch
    except re.error:
        raise ValueError("a character range in a pattern is empty or reversed") from None
    return lambda path: match(path) is not None


def matcher(include: Sequence[str], exclude: Sequence[str]) -> Predicate | None:
    """Whether a path is wanted: some include pattern and no exclude pattern matches; None where every path is.

    ValueError when a pattern's character range is reversed.
    """
    everything = "**" in include
    if everything and not exclude:
        return None
    included = None if everything else _any_of(include) if include else lambda path: False
    excluded = _any_of(exclude) if exclude else None
    return lambda path: (included is None or included(path)) and not (excluded is not None and excluded(path))


def pruner(exclude: Sequence[str]) -> Predicate | None:
    """Whether a folder need not be entered, since an exclude pattern `…/**` covers all below it; None for never."""
    folders = [pattern.rstrip("/")[: -len("/**")] for pattern in exclude if pattern.rstrip("/").endswith("/**")]
    return _any_of([folder for folder in folders if folder]) if any(folders) else None
