"""The page `docs/architecture.md`: rooms, the way of one file and of one batch, and the list of steps as it is."""

from __future__ import annotations

from dicom_assets.batch.steps import STEPS
from dicom_assets.schema.registry import TABLES


def _steps() -> str:
    lines = ["| step | makes | from | what a row is |", "|---|---|---|---|"]
    for step in STEPS:
        for name, (above, _) in step.tables.items():
            grain = TABLES[name].grain if name in TABLES else step.description
            origins = "every table of the batch" if name == "cleanup" else ", ".join(f"`{one}`" for one in above)
            lines.append(f"| `{step.name}` | `{name}` | {origins or 'the claim'} | {grain} |")
    return "\n".join(lines)


def architecture_page() -> str:
    """The page."""
    return f"""# Architecture

Made by `make docs` from `dicom_assets/batch/steps.py`; a test keeps it current.

One sentence rules the design: **nothing that arrives is ever unaccounted for**. For every batch
`seen = ingested + quarantined + ignored + deleted`, checked against what is in the tables and not against counters that
were kept on the way.

## The rooms

From the top; each imports only what stands below it, and no modules import each other in a circle. A test holds both.

| room | what is in it |
|---|---|
| `definitions` | what Dagster loads |
| `cli` | the command, one module for each group of commands |
| `defs` | the Dagster graph, thin: assets and checks made from the list of steps; sensors, schedules, jobs, event log |
| `serve` | the lake answering over HTTP: DICOMweb, in place |
| `monitoring` | who looks after a lake without looking at it: numbers, alerts, lineage |
| `batch` | what happens to a batch: the list of steps, expanding, judging, publishing, books; its rules, and `verify` |
| `curation` | what the data say between them: conflicts, duplicates, geometry, tags, risk, cohorts |
| `reading` | the processes that read: chunks of objects in, staged rows out; a Dask cluster as well |
| `service` | what a DICOM service says, and sending to one |
| `landing` | what arrives: stores, listing, claims, archives, events |
| `clinical`, `fhir`, `omop` | records that come with images, and the standards made from the lake |
| `dicom` | what a DICOM object says: recognising, header, values, identity, flaws |
| `engines` | what engines that people already have are told of a lake: scripts, and the data contract |
| `lake` | Delta tables: commits, rewriting, staging, the SQL of the hierarchy, queries, maintenance |
| `storage` | files below a root, bytes by range, locks, leases, credentials: a folder or Azure |
| `schema` | the registry: tables, columns, attributes, keys, reason codes |

## The way of one file

1. A sensor's tick, or `dicom-assets ingest`, lists its source (`landing`) and compares it with the claim log
   (`landing/claims.py`). What is new and at rest is written into the manifest of a batch: from here on it is accounted
   for, whatever happens.
2. The run of the batch looks at its first bytes (`landing/sniff.py`): DICOM, an archive, clinical records, a window of
   a change feed, or none of these. Archives are opened into members, which are objects like any other.
3. A reading process opens it once (`reading/judge.py`), reads its header (`dicom/header.py`) or its records
   (`clinical`), and gives it one outcome. Rows are staged below `_staging/` of the lake as Arrow files; nothing else
   has changed yet. What could not be read for an outside reason leaves the batch and is claimed again.
4. Blocking checks hold the staged rows against the claim, against archives and records read by other libraries, and
   against the objects themselves. Only then do its rows reach the tables; each table is replaced for this batch in one
   commit, so that running again at any point ends in the same tables.
5. The studies that the batch touches are made again from all their rows, and so are FHIR and OMOP.
6. `cleanup` counts each table, closes the row in `batches`, and removes the staging.

## The way of one batch: the list of steps

Each line is an asset, and each rule of `batch/checks/` a check of the asset that it names. `ingest`, sensors and
backfills run these steps in Dagster's in-process executor; tests and `verify --fix` take the same list.

{_steps()}

## Where to change what

[CONTRIBUTING.md](../CONTRIBUTING.md) has the recipes: a column, a check, a step, a source, a sensor, a reason code, a
kind of object.
"""
