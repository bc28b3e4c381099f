"""Clinical records: tables of text beside the patients they belong to."""
