"""A pytest plugin: branch coverage of the package in each of the processes of pytest-xdist.

``make test COVER=90`` loads it by PYTEST_PLUGINS: options of pytest are read too late in these
processes, when the package is imported already. What tests start themselves is not measured. Its
settings are in pyproject.toml.
"""

import os

import coverage
import pytest
import torch  # noqa: F401  (before it starts: measured, this import takes twice as long)

_measure = coverage.Coverage(data_suffix=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests():
    """Begin, but not in the process that only hands out tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        _measure.start()


def pytest_unconfigure():
    """Write the file of this process."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        _measure.stop()
        _measure.save()
