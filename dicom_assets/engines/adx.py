"""Azure Data Explorer: external tables of kind delta, and stored functions where views stand elsewhere.

Belongs here: its commands, in Kusto's language. Does not belong here: SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.statements import Script
from dicom_assets.engines.views import shown_as
from dicom_assets.lake.dataset_types import shown_names
from dicom_assets.schema.registry import TABLES

FOLDER = "dicom_assets"


def literal(text: str) -> str:
    """A text as Kusto writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in escaped) + "'"


def adx_script(held: Holdings, database: str) -> Script:
    """For Azure Data Explorer. Raises UserError for a folder."""
    place = held.on_azure("Azure Data Explorer")
    needs = f"""
Tables of the lake at {held.uri}, for the database {database} of Azure Data Explorer (an eventhouse of Fabric
takes the same commands). Each command is run for itself; Execute Database Script runs them all.

Needed first:
1. The cluster has a system-assigned managed identity, which has the role Storage Blob Data Reader on the
container {place.container} of the storage account {place.account}.
2. Whoever runs this is AllDatabasesAdmin: external tables that read by a managed identity ask for that. The
first command asks for it as well.

external_table('study') reads the lake as it is now. What is asked often is kept near the cluster by: .alter
external table study policy query_acceleration '{{"IsEnabled": true, "Hot": "365.00:00:00"}}'

Columns and types come from the table's log. clinical() is what counts of
external_table('{shown_as("clinical")}'). The views study_clinical, flat_metadata_versions and
ingestion_error_states join by conditions that Kusto's joins do not take, and are not made; nor are condition,
observation, medication, study_condition, study_observation and study_medication."""
    return Script(needs, [*_commands(held, database)], comment="// ", ends="")


def _commands(held: Holdings, database: str) -> Iterator[str]:
    policy = json.dumps([{"ObjectId": "system", "AllowedUsages": "ExternalTable"}])
    yield f".alter-merge database ['{database}'] policy managed_identity ```{policy}```"
    for table in held.tables:
        address = f"{held.abfss('Azure Data Explorer', table)};managed_identity=system"
        yield (
            f".create-or-alter external table ['{shown_as(table)}']\nkind = delta\n(h@{literal(address)})\n"
            f"with (folder = {literal(FOLDER)}, docString = {literal(TABLES[table].description)})"
        )
    if held.has("clinical"):
        body = f"external_table({literal(shown_as('clinical'))})\n| where isempty(version_state)"
        yield _function("clinical", "Clinical records that count: neither superseded nor held", body)
    for dataset, types in held.datasets.items():
        yield _dataset(dataset, types)


def _function(name: str, docstring: str, body: str) -> str:
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        f".create-or-alter function with (folder = {literal(FOLDER)}, docstring = {literal(docstring)}, "
        f"skipvalidation = true)\n['{name}']() {{\n{indented}\n}}"
    )


_CASTS = {
    "BOOLEAN": "tobool({})",
    "BIGINT": "tolong({})",
    "DOUBLE": "todouble({})",
    "DECIMAL_COMMA": "todouble(replace_string({}, ',', '.'))",
    "DATE": "todatetime({})",
    "TIMESTAMP": "todatetime({})",
    "TIMESTAMPTZ": "todatetime({})",
    "VARCHAR": "{}",
}


def _dataset(dataset: str, types: Mapping[str, str]) -> str:
    shown = shown_names(types)
    columns = ["source", "record_key", "patient_id = PatientID", "patient_issuer = IssuerOfPatientID", "effective_at"]
    for column, kind in types.items():
        text = f"tostring(said[{literal(column)}])"
        columns.append(f"[{literal(shown[column])}] = {_CASTS[kind].format(text)}")
    listed = ",\n    ".join(columns)
    body = (
        f"clinical()\n| where record_type == {literal(dataset)}\n| extend said = parse_json(record_values)\n"
        f"| project\n    {listed}"
    )
    return _function(f"clinical_{dataset}", f"Clinical records of dataset {dataset}, in typed columns", body)
