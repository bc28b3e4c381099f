"""What is kept: Delta tables, commits, rewriting, staging, the SQL of the hierarchy, queries, maintenance."""
