"""Long runs against hostile input; the short ones stand in the test suite."""
