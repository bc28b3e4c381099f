"""What the data say between them: conflicts, duplicates, geometry, tags, risk, cohorts."""
