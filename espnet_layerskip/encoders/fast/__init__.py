"""The exact fast form of encoders: the same numbers in fewer operations."""
