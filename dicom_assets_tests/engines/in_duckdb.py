"""Runs in the engines' environment: statements and queries in DuckDB with its extension delta, which is not delta-rs.

As `in_spark`. The extension is the one that its package brings: nothing is downloaded. stdin may have "tsql" as well:
statements of Transact-SQL, which sqlglot translates, and which are run behind the others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb
import duckdb_extension_delta
import sqlglot
from arrow_rows import plain


def main() -> None:
    """See above."""
    asked = json.load(sys.stdin)
    (extension,) = Path(duckdb_extension_delta.__file__).parent.glob(f"extensions/v{duckdb.__version__}/*")
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    )
    connection.execute("SET TimeZone = 'UTC'")
    for statement in asked["statements"]:
        if statement.endswith("INSTALL delta"):
            continue
        connection.execute(f"LOAD '{extension}'" if statement == "LOAD delta" else statement)
    for statement in asked.get("tsql", ()):
        translated = sqlglot.transpile(statement, read="tsql", write="duckdb")[0]
        # What sqlglot 30 leaves as it was: texts are put together with ||, FLOAT is a double, BIT a truth value.
        translated = (
            translated.replace(" + NCHAR(", " || chr(")
            .replace("NCHAR(", "chr(")
            .replace("AS REAL", "AS DOUBLE")
            .replace("AS BIT)", "AS BOOLEAN)")
        )
        connection.execute(translated)
    answers = {name: plain(connection.sql(query).to_arrow_table()) for name, query in asked["queries"].items()}
    print(json.dumps(answers))


main()
