"""Networks that score images, and their one-file format."""
