"""Measuring: interleaved timing, counted FLOPs, and accuracy of the same weights and settings."""
