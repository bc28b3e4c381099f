"""The page `docs/engines.md`, and the data contract `docs/datacontract.yaml`.

Belongs here: their text, with what scripts and the registry say already. Does not belong here: the scripts
(`dicom_assets.engines`).
"""

from __future__ import annotations

from dicom_assets.engines.data_contract import contract, of_release
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.scripts import script
from dicom_assets.storage.azure import parse


def _example() -> Holdings:
    """A lake as the examples of the page have it: small, so that a script shows itself whole."""
    new = of_release()
    place = parse("az://contoso/imaging/lake")
    return Holdings(place.url, place, {"patient_link": new.tables["patient_link"]}, {})


def contract_file() -> str:
    """docs/datacontract.yaml."""
    return contract(of_release())


def engines_page() -> str:
    """docs/engines.md."""
    example = _example()
    shown = {engine: script(engine, example).strip() for engine in ("synapse", "databricks", "adx")}
    return f"""# Engines that people already have

Made by `make docs` from `dicom_assets/engines/`; a test keeps it current.

The lake is Delta tables, so an engine that reads Delta reads it where it lies. One command prints the script that puts
all tables and views into one; it runs nothing and writes nothing:

```sh
dicom-assets engines spark --lake /srv/lake
dicom-assets engines duckdb --lake /srv/lake
dicom-assets engines synapse --lake az://contoso/imaging/lake
dicom-assets engines fabric --lake az://contoso/imaging/lake
dicom-assets engines databricks --lake az://contoso/imaging/lake
dicom-assets engines adx --lake az://contoso/imaging/lake
```

`--database` names the database or schema there; `dicom_assets` otherwise. Each script begins with what is needed first,
and which role who needs. Everybody who reads needs **Storage Blob Data Reader** on the container, and nobody a right to
write: tables are written by dicom-assets alone.

## What an engine is given

- **Tables** of reader version 1 and writer version 2 of the Delta protocol: no deletion vectors, no column mapping, no
  partitions. A test holds that for every table, also after upgrade, promotion, merges and vacuum.
- **Sentences**: each table and column says in its schema what it holds (`comment` in a column's metadata). Spark,
  Databricks and Fabric show them. A lake of an earlier release gains them when it is next written to, or by
  `dicom-assets upgrade`; its files stay as they are. What somebody else writes there is set right again.
- **Views** as `dicom_assets.connect` has them: `clinical` (what counts; the table itself is `all_clinical` there),
  `study_clinical`, `condition`, `observation`, `medication` and the same beside studies (`study_condition` …),
  `flat_metadata_versions`, `ingestion_error_states`, and `clinical_NAME` for each dataset. `tag_drift` is ours alone.
- **Names** as they are: promoted columns, and titles of tables that people delivered, are quoted.

`read_parquet` over a table's folder is not the table: a file stays there for a while after it was replaced. Ask by the
log, as the scripts do.

| engine | tables | views | run here |
|---|---|---|---|
| Spark SQL | external Delta tables | all | yes, by pysail: script, tables, views, queries of the README |
| DuckDB | `delta_scan` | all | yes, by its extension `delta`: script, every table and view; not the part for Azure |
| ClickHouse (chdb) | `deltaLakeLocal` | none made | yes: every table. A list that is NULL is an empty one there |
| Databricks | external Delta tables | all | no: the views are those of Spark SQL |
| Synapse serverless | views over `OPENROWSET` | all | no: its views are, after sqlglot has translated them for DuckDB |
| Fabric | OneLake shortcuts | all, without lists | no: the shell script is run with a stand-in for `az` |
| Azure Data Explorer | external tables, kind `delta` | `clinical`, `clinical_NAME` | no: names and quoting are tested |

`make engines` installs what is run here into `build/engines`, an environment of its own: what datacontract-cli and
these engines need is not what dicom-assets needs. The lakes that they read have gone through replaced and deleted
files, corrections, promotion, merges, upgrade and vacuum.

## Spark

The script is for `spark-sql -f`, or statement by statement for `spark.sql`. Most queries of the README are Spark SQL as
well; those that are not are in `data/queries/spark/`:

- `list_contains(…)` is `array_contains(…)`, and `len(…)` of a list is `size(…)`;
- a path into a header is `get_json_object(header, '$.00189073.Value[0]')`;
- `list(… ORDER BY …)` is `array_sort(collect_list(…))`;
- `GROUP BY ALL` is understood by Spark, and not by pysail 0.7. That one also forgets the quotes around a name when it
  stores a view: ask `clinical_NAME` there by the SELECT that the script shows, where titles need quoting.

The notebook `data/notebooks/lake.ipynb` asks the demo lake with DuckDB and with Spark. To run it: `make demo`,
`make engines`, then open it with the kernel of `build/engines/venv`.

## Databricks

Unity Catalog reads by an external location, whose credential is an access connector's managed identity. Of a lake with
one table:

```text
{shown["databricks"]}
```

## Synapse serverless SQL

Each table is a view with explicit columns, since only so a list arrives, as JSON text. `OPENJSON(ModalitiesInStudy)`
takes it apart. JSON_VALUE, by which `clinical_NAME` reads records, gives NULL for texts of more than 4,000 characters.
Of a lake with one table:

```text
{shown["synapse"]}
```

## Fabric

The script is for bash with the Azure CLI: one call of Fabric's REST API makes the OneLake shortcut of a table, and the
views are for the lakehouse's SQL analytics endpoint. Nothing is copied. The endpoint leaves out columns that are lists;
Spark in Fabric has them.

## Azure Data Explorer

External tables of kind delta, read by the cluster's managed identity, for the flat table, `instance`, `series`, `study`
and all others. An eventhouse of Fabric takes the same commands. Of a lake with one table:

```text
{shown["adx"]}
```

## DuckDB elsewhere

`dicom-assets sql` and `dicom_assets.connect` need no extension. For a DuckDB that is not ours, the script makes the
same names over `delta_scan`.

## The data contract

[datacontract.yaml](datacontract.yaml) is the contract of a lake of this release, in the Open Data Contract Standard
3.1: tables, columns, types, keys, what may be NULL, and two kinds of rules: keys are unique, and the books of closed
batches balance. `dicom-assets engines contract` prints that of your lake, with its place and its promoted columns:

```sh
dicom-assets engines contract --lake /srv/lake
```

datacontract-cli tells that it is valid (`datacontract lint`), and holds a lake against it (`datacontract test`, for
which its DuckDB needs the extension `delta`). Both are done in the tests.
"""
