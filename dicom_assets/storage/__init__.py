"""Files below a root, whatever it is made of: bytes by range, a folder, Azure; locks, leases, credentials."""
