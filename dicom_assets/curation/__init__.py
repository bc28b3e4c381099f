"""What the data say between them: conflicts, duplicates, geometry, tags, risk, cohorts.

Belongs here: finding it in rows of the lake. Does not belong here: what a batch publishes and when (`batch`).
"""
