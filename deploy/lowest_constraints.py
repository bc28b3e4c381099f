"""Writes the lowest declared version of every package that pyproject.toml requires at run time, as pip's constraints.

    python deploy/lowest_constraints.py > build/lowest/constraints.txt

What those packages require themselves stays free: whoever installs this project into an older environment has the
floors at worst, and whatever else fits them. pip is used and no other installer, because it is what everybody who
installs this project uses, with the index that it is configured for.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?\s*>=\s*(?P<floor>[\w.]+)\s*(?:,\s*<[\w.]+)?\s*(?:;.*)?")


def floor(requirement: str) -> str:
    """The pin of a requirement `name>=lowest` or `name>=lowest,<bound`; ValueError when it declares no floor."""
    parts = _REQUIREMENT.fullmatch(requirement)
    if parts is None:
        raise ValueError(f"{requirement!r} declares no lowest version: write name>=version")
    return f"{parts['name']}=={parts['floor']}"


def main() -> None:
    """Prints the constraints."""
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    sys.stdout.writelines(f"{floor(one)}\n" for one in declared)


if __name__ == "__main__":
    main()
