"""What a DICOM object says: sniffing, header reading, values, columns. Knows nothing of Dagster, tables or storage."""
