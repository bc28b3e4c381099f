"""What the data say between them: each table follows from what the lake holds, at the pace of a batch."""
