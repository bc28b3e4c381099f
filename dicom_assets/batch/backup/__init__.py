"""Backups of a lake with its claims and Dagster's state: taken while batches run, verified, and put back.

Belongs here: what is copied in which order so that it can be put back, where copies lie, and what is mended after it.
Does not belong here: protection by the storage itself (docs/backup.md), the state of Dagster in PostgreSQL (pg_dump).
"""
