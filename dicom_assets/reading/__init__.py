"""The processes that read: chunks of objects in, staged Arrow out. They know neither Dagster nor Delta nor DuckDB."""
