"""Pages of `docs/` that are made from registries and mappings. `python -m dicom_assets.docs` writes them.

Belongs here: Markdown from what the code says already. Does not belong here: anything that would be written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dicom_assets import docs_standards
from dicom_assets.docs_architecture import architecture_page
from dicom_assets.docs_dicomweb import dicomweb_page
from dicom_assets.docs_engines import contract_file, engines_page
from dicom_assets.docs_monitoring import monitoring_page
from dicom_assets.lake.query import sql_type
from dicom_assets.schema.codes import CODES, OUTSIDE
from dicom_assets.schema.registry import TABLES, Table

FOLDER = Path(__file__).parent.parent / "docs"


def _table_section(table: Table) -> str:
    rows = "\n".join(
        f"| `{c.name}` | {sql_type(c.type)} | {'' if c.nullable else 'never NULL'} | {c.description} |"
        for c in table.columns
    )
    upstream = f" Made from {', '.join(f'`{name}`' for name in table.upstream)}." if table.upstream else ""
    return f"""## {table.name}

{table.description}{upstream}

One row: {table.grain}. Key: {", ".join(f"`{name}`" for name in table.key)}.

| column | type | | what it holds |
|---|---|---|---|
{rows}
"""


def tables_page() -> str:
    """docs/tables.md."""
    overview = "\n".join(
        f"| [`{t.name}`](#{t.name}) | {t.grain} | {', '.join(t.key)} | {len(t.columns)} |" for t in TABLES.values()
    )
    sections = "\n".join(_table_section(table) for table in TABLES.values())
    return f"""# Tables

Made from `dicom_assets/schema/registry.py` by `make docs`; a test keeps it current. Each table is a Delta table at
`{{lake}}/{{table}}`. DICOM attributes keep their keyword as column name; the project's own columns are snake_case.

| table | one row | key | columns |
|---|---|---|---|
{overview}

{sections}"""


def _no_outcome(code: str) -> str:
    return "nothing: it waits" if code in OUTSIDE else "record or batch"


def codes_page() -> str:
    """docs/reason-codes.md."""
    rows = "\n".join(
        f"| `{c.name}` | {c.outcome or _no_outcome(c.name)} | {c.severity} | {c.meaning} | {c.remedy} |"
        for c in CODES.values()
    )
    return f"""# Reason codes

Made from `dicom_assets/schema/codes.py` by `make docs`; a test keeps it current. Warn and keep: an object is
quarantined only when it has no usable identity or its bytes are unsafe. `dicom-assets errors` shows the codes of a lake
by number.

| code | object ends as | severity | what it means | what to do |
|---|---|---|---|---|
{rows}
"""


PAGES: dict[str, Callable[[], str]] = {
    "tables.md": tables_page,
    "reason-codes.md": codes_page,
    "fhir.md": docs_standards.fhir_page,
    "omop.md": docs_standards.omop_page,
    "architecture.md": architecture_page,
    "dicomweb.md": dicomweb_page,
    "engines.md": engines_page,
    "datacontract.yaml": contract_file,
    "monitoring.md": monitoring_page,
}
"""Every generated page by file name."""


def main() -> None:
    """Writes every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
