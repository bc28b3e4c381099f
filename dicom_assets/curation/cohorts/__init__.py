"""Frozen selections of objects: made, listed, compared with what is current, exported, removed."""
