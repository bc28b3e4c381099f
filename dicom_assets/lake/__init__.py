"""What is kept: the registry of tables, the Delta store, the SQL of the hierarchy, queries."""
