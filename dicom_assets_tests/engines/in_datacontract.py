"""Runs in the engines' environment: holds data contracts against the standard and a lake, by datacontract-cli.

Arguments: a contract to be looked at alone, and contracts that a lake is held against. stdout: for each the result, and
how many checks there were. DuckDB's extension delta comes from its package, into a home of its own, so that nothing is
downloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME = Path.cwd() / "home"
HOME.mkdir(exist_ok=True)
os.environ["HOME"] = str(HOME)

import duckdb  # noqa: E402
import duckdb_extension_delta  # noqa: E402
from datacontract.data_contract import DataContract  # noqa: E402

(extension,) = Path(duckdb_extension_delta.__file__).parent.glob(f"extensions/v{duckdb.__version__}/*")
duckdb.connect().execute(f"INSTALL '{extension}'")
alone, *held = (DataContract(data_contract_file=contract) for contract in sys.argv[1:])
for run in (alone.lint(), *(contract.test() for contract in held)):
    print(f"{run.result.value}: {len(run.checks)} checks", flush=True)
