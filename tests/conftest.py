"""Settings of all tests."""

import copy
import functools
import logging
import os
import sys

import hypothesis
import pytest
import yaml

from espnet_layerskip._late_imports import start_sooner

# With pytest -n N this process only hands out tests: it need not wait for ESPnet's import.
HANDS_OUT = "-n" in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ

if not HANDS_OUT:
    start_sooner()  # as our programs do: less to import, and nothing that wants to download
    pytest_plugins = [
        "tests.support.encoders",
        "tests.support.experiments",
        "tests.support.recognizers",
        "tests.support.report",
        "tests.support.trials",
    ]

_parse = functools.cache(yaml.safe_load)


def _safe_load(stream):
    """As yaml.safe_load, but a text is parsed once: a model's configuration takes 50 ms."""
    return copy.deepcopy(_parse(stream.read() if hasattr(stream, "read") else stream))


yaml.safe_load = _safe_load

# No deadline: the time of one example says nothing on a machine that trains beside the tests.
# In CI the examples are the same in each run; elsewhere each run tries others.
hypothesis.settings.register_profile(
    "layerskip", deadline=None, derandomize=os.environ.get("CI") == "true"
)
# pytest --hypothesis-profile=nightly: other examples in each run, and many; what fails is printed
# with the way to try it again.
hypothesis.settings.register_profile(
    "nightly", deadline=None, derandomize=False, max_examples=1000, print_blob=True
)
hypothesis.settings.load_profile("layerskip")


@pytest.fixture(autouse=True)
def _log_level():
    """Put back the root logger's level: some programs raise it; the next test reads warnings."""
    logger = logging.getLogger()
    before = logger.level
    yield
    logger.setLevel(before)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, or one of them ends long after all others.

    They are the properties and those that have slow tests. What needs a GPU is skipped where
    there is none.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("properties" not in item.path.parts, item.path not in slow))
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
