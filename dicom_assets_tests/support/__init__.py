"""What several tests build on: generated objects, landing folders, lakes run in process, commands run for real."""
