"""What the data say between them."""
