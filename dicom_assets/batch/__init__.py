"""What happens to a batch between its claim and its closed books: expand, read, judge, publish, check, close."""
