"""A script for an engine: comments that say what it needs, then statements, each for itself.

Belongs here: how they are put together. Does not belong here: what they say.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 118


@dataclass(frozen=True)
class Script:
    """What is printed. ends: what stands behind a statement."""

    needs: str
    statements: Sequence[str]
    comment: str = "-- "
    ends: str = ";"

    def text(self) -> str:
        """The whole script."""
        parts = [remark(self.needs, self.comment), *(f"{one}{self.ends}" for one in self.statements)]
        return "\n\n".join(parts) + "\n"


def remark(text: str, comment: str = "-- ") -> str:
    """Sentences as lines of a comment. A paragraph begins behind an empty line, and with a number."""
    paragraphs = re.split(r"\n\s*\n|\n(?=\d+\. )", text.strip())
    return "\n".join(f"{comment}{line}" for one in paragraphs for line in _wrapped(" ".join(one.split()), comment))


def _wrapped(paragraph: str, comment: str) -> list[str]:
    indent = "   " if paragraph[:1].isdigit() else ""
    return textwrap.wrap(
        paragraph,
        WIDTH - len(comment),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
