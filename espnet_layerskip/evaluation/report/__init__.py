"""The report of an experiment: figures and one self-contained HTML page."""
