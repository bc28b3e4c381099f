"""The open lake for medical-imaging metadata, run by Dagster."""
