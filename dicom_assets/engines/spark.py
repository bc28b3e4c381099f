"""Spark SQL and Databricks: external Delta tables, and views.

Belongs here: the statements of both, which differ in who may read, and how that is said. Does not belong here: what the
views say (`views`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.engines.dialects import Spark
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.statements import Script
from dicom_assets.engines.views import shown_as, views
from dicom_assets.schema.registry import TABLES

SPARK = Spark()
_SCHEMA = "Medical-imaging metadata: DICOM, clinical records, FHIR and OMOP"


def spark_script(held: Holdings, database: str) -> Script:
    """For Spark with Delta Lake. Raises UserError."""
    needs = f"""
Tables and views of the lake at {held.uri}, for Spark SQL. Run it with spark-sql -f, or statement by statement
with spark.sql.

Needed first:
1. Spark 3.4 or newer (views with try_cast), with Delta Lake of the same version: spark.jars.packages
io.delta:delta-spark, spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension,
spark.sql.catalog.spark_catalog org.apache.spark.sql.delta.catalog.DeltaCatalog. Or pysail, which needs none of
these.
2. {_reach(held)}

Nothing is copied, and nothing is written to the lake. A table that gains columns shows them by itself; run the
script again for views and for tables that came later."""
    return Script(needs, [*_statements(held, database, "Spark")])


def _reach(held: Holdings) -> str:
    if held.place is None:
        return "That every executor reads this folder."
    return (
        "hadoop-azure and an identity with the role Storage Blob Data Reader on the container "
        f"{held.place.container} of the storage account {held.place.account} "
        "(fs.azure.account.auth.type and its provider)."
    )


def databricks_script(held: Holdings, database: str) -> Script:
    """For Databricks with Unity Catalog. Raises UserError for a folder."""
    place = held.on_azure("Databricks")
    credential = f"{database}_lake"
    needs = f"""
Tables and views of the lake at {held.uri}, for Databricks with Unity Catalog. Run it on a SQL warehouse, or on
a cluster of access mode standard.

Needed first:
1. An Access Connector for Azure Databricks whose managed identity has the role Storage Blob Data Reader on the
container {place.container} of the storage account {place.account}, which must have a hierarchical namespace.
2. A storage credential of that connector, by somebody with CREATE STORAGE CREDENTIAL: databricks
storage-credentials create --json '{{"name": "{credential}", "read_only": true, "azure_managed_identity":
{{"access_connector_id": "/subscriptions/…"}}}}'
3. CREATE EXTERNAL LOCATION on the metastore and on that credential. The role is for reading alone: a location
that Databricks refuses because it cannot write there is made by the first statement's equivalent, databricks
external-locations create {credential} {held.abfss("Databricks")} {credential} --read-only --skip-validation
4. USE CATALOG and CREATE SCHEMA on the current catalog (USE CATALOG …), CREATE TABLE on the schema, and CREATE
EXTERNAL TABLE on the location.

Tables bring their columns, and what each of them holds, from the lake itself. For those who ask: GRANT USE
SCHEMA, SELECT ON SCHEMA {SPARK.named(database)} TO `group`."""
    location = (
        f"CREATE EXTERNAL LOCATION IF NOT EXISTS {SPARK.named(credential)}\n"
        f"URL {SPARK.literal(held.abfss('Databricks'))}\n"
        f"WITH (STORAGE CREDENTIAL {SPARK.named(credential)})\n"
        f"COMMENT {SPARK.literal('The lake of dicom-assets')}"
    )
    return Script(needs, [location, *_statements(held, database, "Databricks")])


def _statements(held: Holdings, database: str, engine: str) -> Iterator[str]:
    def name(table: str) -> str:
        return f"{SPARK.named(database)}.{SPARK.named(table)}"

    yield f"CREATE SCHEMA IF NOT EXISTS {SPARK.named(database)} COMMENT {SPARK.literal(_SCHEMA)}"
    for table in held.tables:
        yield (
            f"CREATE TABLE IF NOT EXISTS {name(shown_as(table))} USING DELTA\n"
            f"LOCATION {SPARK.literal(held.location(engine, table))}\n"
            f"COMMENT {SPARK.literal(TABLES[table].description)}"
        )
    for view in views(held, SPARK, name):
        yield f"CREATE OR REPLACE VIEW {name(view.name)} COMMENT {SPARK.literal(view.description)} AS\n{view.sql}"
