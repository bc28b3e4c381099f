"""What the lake is made of: the registry of tables and columns, DICOM attributes, keys, reason codes."""
