"""Lakes of earlier releases, brought up to date."""
