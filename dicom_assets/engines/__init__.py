"""Engines that people already have: scripts by which they see a lake's tables and views, and the lake's data contract.

Belongs here: what Synapse, Fabric, Databricks, Azure Data Explorer, Spark and DuckDB have to be told. Does not belong
here: reading tables (`lake.query`), running anything in an engine.
"""
