"""What arrives: stores, listing, claims, archives, events."""
