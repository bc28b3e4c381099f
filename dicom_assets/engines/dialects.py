"""How engines write what the views of a lake need: names, literals, types, cleaned identifiers, values of JSON.

Belongs here: one dialect for each family of engines. Does not belong here: what a view says (`views`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.lake import dataset_types
from dicom_assets.lake.quoting import pointed, quoted
from dicom_assets.lake.subjects import CONTROL, SPACES
from dicom_assets.lake.table_form import normal_type, sql_type

_SPARK_CASTS = {"TIMESTAMP": "TIMESTAMP_NTZ", "TIMESTAMPTZ": "TIMESTAMP"}
_TSQL_CASTS = {"BOOLEAN": "BIT", "DOUBLE": "FLOAT", "TIMESTAMP": "DATETIME2(6)", "TIMESTAMPTZ": "DATETIMEOFFSET(6)"}
_TSQL_TYPES: Mapping[str, str] = {
    "string": "VARCHAR(MAX)",
    "int64": "BIGINT",
    "int32": "INT",
    "double": "FLOAT",
    "bool": "BIT",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "DATETIME2(6)",
}


@dataclass(frozen=True)
class Dialect:
    """SQL of one family of engines. Where nothing else is said, it is the standard's."""

    quotes: tuple[str, str] = ('"', '"')

    def named(self, name: str) -> str:
        """A name as an identifier."""
        first, last = self.quotes
        return f"{first}{name.replace(last, last * 2)}{last}"

    def listed(self, names: Iterable[str], of: str = "") -> str:
        """Names as a list of columns, of a relation."""
        return ", ".join(f"{of}.{self.named(name)}" if of else self.named(name) for name in names)

    def literal(self, text: str) -> str:
        """A text as a literal."""
        return quoted(text)

    def characters(self, text: str) -> str:
        """A text of characters that nobody can see, readable."""
        return " || ".join(f"chr({ord(one)})" for one in text)

    def same(self, one: str, other: str) -> str:
        """Whether two values are the same, NULL being a value."""
        return f"({one} = {other} OR ({one} IS NULL AND {other} IS NULL))"

    def clean(self, column: str) -> str:
        """A text as `lake.subjects.clean` has it: without control characters and surrounding space; never empty."""
        kept = f"translate({column}, {self.characters(CONTROL)}, '')"
        return f"nullif(trim(BOTH {self.characters(SPACES)} FROM {kept}), '')"

    def said(self, document: str, key: str) -> str:
        """The text under a key of a JSON object; NULL where there is none."""
        return pointed(document, key)

    def at(self, document: str, path: str) -> str:
        """The text at a path of a JSON object, such as `code.coding[0].display`; NULL where there is none."""
        return f"({document} ->> {self.literal(f'$.{path}')})"

    def cast(self, text: str, kind: str) -> str:
        """A text as a type of `lake.dataset_types`; NULL where it is blank or of another type."""
        return dataset_types.cast(text, kind)

    def offset(self, text: str) -> str | None:
        """The offset that a time was written with; None where the time itself keeps it."""
        return f"nullif(regexp_extract({text}, '(Z|[+-][0-9:]+) *$', 1), '')"

    def type(self, kind: pa.DataType) -> str:
        """The type of a column of a table."""
        return sql_type(pa.field("x", kind).type)


@dataclass(frozen=True)
class DuckDB(Dialect):
    """DuckDB."""

    def clean(self, column: str) -> str:
        """See above; DuckDB writes trim as a function."""
        kept = f"translate({column}, {self.characters(CONTROL)}, '')"
        return f"nullif(trim({kept}, {self.characters(SPACES)}), '')"


@dataclass(frozen=True)
class Spark(Dialect):
    """Spark SQL and Databricks SQL."""

    quotes: tuple[str, str] = ("`", "`")

    def literal(self, text: str) -> str:
        """See above; a backslash escapes, also a quotation mark."""
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\u0000") + "'"

    def characters(self, text: str) -> str:
        """See above."""
        return "'" + "".join(f"\\u{ord(one):04x}" for one in text) + "'"

    def said(self, document: str, key: str) -> str:
        """See above; by way of a map, since a JSON path of Spark's cannot name every key."""
        return f"from_json({document}, 'map<string,string>')[{self.literal(key)}]"

    def at(self, document: str, path: str) -> str:
        """See above."""
        return f"get_json_object({document}, {self.literal(f'$.{path}')})"

    def cast(self, text: str, kind: str) -> str:
        """See above."""
        if kind == "DECIMAL_COMMA":
            return f"try_cast(replace(trim({text}), ',', '.') AS DOUBLE)"
        return text if kind == "VARCHAR" else f"try_cast(trim({text}) AS {_SPARK_CASTS.get(kind, kind)})"


@dataclass(frozen=True)
class TSQL(Dialect):
    """Transact-SQL as Synapse's serverless pools and Fabric's SQL endpoints know it, in a database of UTF-8."""

    quotes: tuple[str, str] = ("[", "]")

    def characters(self, text: str) -> str:
        """See above."""
        return " + ".join(f"NCHAR({ord(one)})" for one in text)

    def clean(self, column: str) -> str:
        """See above; TRANSLATE replaces and cannot leave out, so that all become one that REPLACE leaves out."""
        one = f"REPLICATE(NCHAR(1), {len(CONTROL)})"
        kept = f"REPLACE(TRANSLATE({column}, {self.characters(CONTROL)}, {one}), NCHAR(1), '')"
        return f"NULLIF(TRIM({self.characters(SPACES)} FROM {kept}), '')"

    def said(self, document: str, key: str) -> str:
        """See above; a text of more than 4,000 characters is NULL."""
        path = "$." + json.dumps(key, ensure_ascii=False)
        return f"JSON_VALUE({document}, {self.literal(path)})"

    def at(self, document: str, path: str) -> str:
        """See above; a text of more than 4,000 characters is NULL."""
        return f"JSON_VALUE({document}, {self.literal(f'$.{path}')})"

    def cast(self, text: str, kind: str) -> str:
        """See above."""
        if kind == "DECIMAL_COMMA":
            return f"TRY_CAST(REPLACE(TRIM({text}), ',', '.') AS FLOAT)"
        blank = f"NULLIF(TRIM({text}), '')"  # which is 0 to T-SQL
        return text if kind == "VARCHAR" else f"TRY_CAST({blank} AS {_TSQL_CASTS.get(kind, kind)})"

    def offset(self, text: str) -> str | None:
        """See above: DATETIMEOFFSET keeps it."""
        return None

    def type(self, kind: pa.DataType) -> str:
        """See above; a list is its JSON text."""
        word = normal_type(kind)
        return "VARCHAR(MAX)" if word.startswith("list") else _TSQL_TYPES[word]
