"""The Dagster graph, thin: assets, checks, sensors, schedules, jobs, partitions, the resource, and running it here."""
