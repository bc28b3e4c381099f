"""The commands `engines …`: what an engine that people already have is told of a lake, and the lake's data contract.

Belongs here: options and printing. Does not belong here: what is said (`dicom_assets.engines`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from dicom_assets.cli.options import LakeOption, clear_errors, load_settings

engines = typer.Typer(
    no_args_is_help=True,
    help="Print the script that puts all tables and views of a lake into an engine. Nothing is run.",
)

_OF = {
    "synapse": "Azure Synapse serverless SQL: a database of views over OPENROWSET.",
    "fabric": "Microsoft Fabric: OneLake shortcuts, and views for the SQL analytics endpoint.",
    "databricks": "Databricks with Unity Catalog: external location, external tables, views.",
    "adx": "Azure Data Explorer: external tables of kind delta, and functions.",
    "spark": "Spark SQL with Delta Lake, or pysail: external tables and views.",
    "duckdb": "DuckDB with its extension delta: views over delta_scan.",
}

Database = Annotated[str, typer.Option("--database", help="Name of the database or schema in the engine.")]


def _command(engine: str) -> Callable[[str | None, str], None]:
    def show(lake: LakeOption = None, database: Database = "dicom_assets") -> None:
        with clear_errors():
            settings = load_settings(None, lake)
            from dicom_assets.engines.holdings import holdings
            from dicom_assets.engines.scripts import script
            from dicom_assets.lake.query import existing

            text = script(engine, holdings(existing(settings.lake)), database)
        typer.echo(text, nl=False)

    return show


for _engine, _help in _OF.items():
    engines.command(_engine, help=_help)(_command(_engine))


@engines.command("contract")
def contract(lake: LakeOption = None) -> None:
    """The data contract of a lake (ODCS 3.1, YAML): tables, columns, keys, and what always holds."""
    with clear_errors():
        settings = load_settings(None, lake)
        from dicom_assets.engines.data_contract import contract as contract_of
        from dicom_assets.engines.holdings import holdings
        from dicom_assets.lake.query import existing

        text = contract_of(holdings(existing(settings.lake)))
    typer.echo(text, nl=False)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.add_typer(engines, name="engines")
