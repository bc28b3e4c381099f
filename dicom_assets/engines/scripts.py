"""The engines that there are scripts for.

Belongs here: their names, and asking for a script. Does not belong here: what a script says (a module for each engine).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from dicom_assets.engines.adx import adx_script
from dicom_assets.engines.duckdb_views import duckdb_script
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.spark import databricks_script, spark_script
from dicom_assets.engines.statements import Script
from dicom_assets.engines.tsql import fabric_script, synapse_script
from dicom_assets.settings import UserError

SCRIPTS: Mapping[str, Callable[[Holdings, str], Script]] = {
    "synapse": synapse_script,
    "fabric": fabric_script,
    "databricks": databricks_script,
    "adx": adx_script,
    "spark": spark_script,
    "duckdb": duckdb_script,
}
"""By engine, what makes its script of a lake and the name of a database there."""

DATABASE = "dicom_assets"
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def script(engine: str, held: Holdings, database: str = DATABASE) -> str:
    """The script that puts all tables and views of a lake into an engine. Raises UserError."""
    if not _DATABASE.fullmatch(database):
        raise UserError(f"'{database}' cannot name a database in every engine: letters, digits and _, no digit first.")
    return SCRIPTS[engine](held, database).text()
