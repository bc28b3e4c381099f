"""The data contract says what the registry says. That lakes hold it: `test_tables_elsewhere`."""

from __future__ import annotations

import yaml

from dicom_assets.docs import FOLDER
from dicom_assets.schema.registry import TABLES

FILE = FOLDER / "datacontract.yaml"


def test_it_has_every_table_and_column_with_key_and_description():
    told = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert told["apiVersion"] == "v3.1.0" and told["kind"] == "DataContract"
    assert [one["name"] for one in told["schema"]] == [*TABLES]
    for one, table in zip(told["schema"], TABLES.values(), strict=True):
        assert one["description"] == table.description
        assert table.grain in one["dataGranularityDescription"]
        columns = {column["name"]: column for column in one["properties"]}
        assert [*columns] == table.schema.names
        for column in table.columns:
            assert columns[column.name]["description"] == column.description
            assert columns[column.name]["required"] is not column.nullable
        keys = {name: column["primaryKeyPosition"] for name, column in columns.items() if "primaryKey" in column}
        assert tuple(sorted(keys, key=keys.__getitem__)) == table.key
    books = next(one for one in told["schema"] if one["name"] == "batches")["quality"]
    assert any("seen <> ingested + quarantined + ignored + deleted" in rule["query"] for rule in books)
