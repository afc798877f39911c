"""Calibration: the cheapest skipping setting that keeps an error budget on a development set."""
