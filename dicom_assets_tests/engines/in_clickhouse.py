"""Runs in the engines' environment: queries in ClickHouse, by chdb, as `in_spark`.

It reads below the current folder alone.
"""

from __future__ import annotations

import json
import os
import sys

import chdb
from arrow_rows import plain


def main() -> None:
    """See above."""
    asked = json.load(sys.stdin)
    connection = chdb.connect(":memory:")
    answers = {name: plain(connection.query(query, "ArrowTable")) for name, query in asked["queries"].items()}
    print(json.dumps(answers), flush=True)
    os._exit(0)


main()
