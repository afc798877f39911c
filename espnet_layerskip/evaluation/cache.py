"""Decodings kept between runs, so that a new row does not decode the others again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

import espnet_layerskip
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.progress import to_stderr
from espnet_layerskip.files import write_text
from espnet_layerskip.inference.skip_count import SkipCount

PACKAGE_DIR = Path(espnet_layerskip.__file__).parent
# What only calls the code that decodes, or shows what came of it.
_NOT_DECODING = ("bin", "recipe", "verbs", "evaluation/report")


class DecodingCache:
    """A folder with one JSON file a decoding; a key that has changed is decoded again.

    Args:
        directory: Is made where it is missing.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def get(self, key: str) -> Decoded | None:
        """Return what is stored under the key; None if there is nothing or it is damaged."""
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
            return Decoded(**{**found, "skipped": SkipCount(**found["skipped"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, decoded: Decoded) -> None:
        """Store under the key, in one step; a full disk costs what is kept, not the decoding."""
        try:
            write_text(self._path(key), json.dumps(asdict(decoded), ensure_ascii=False))
        except OSError as e:
            to_stderr(f"a decoding cannot be kept for later runs: {e}")

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def digest(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of chunks, with their limits, as hexadecimal digits."""
    total = hashlib.sha256()
    for chunk in chunks:
        total.update(hashlib.sha256(chunk).digest())
    return total.hexdigest()


def speech_digest(data: TestSet) -> str:
    """Return a digest of names and samples; transcripts are scored afresh and stay out."""
    return digest(part for s in data.speech for part in (s.utt_id.encode(), s.samples.tobytes()))


def code_digest(package: Path = PACKAGE_DIR) -> str:
    """Return a digest of all code that decodes, and of the libraries' versions.

    That is the whole package but for what stands above the decoder or renders results.
    """
    above = [package / name for name in _NOT_DECODING]
    sources = sorted(
        path for path in package.rglob("*.py") if not any(path.is_relative_to(a) for a in above)
    )
    versions = f"{torch.__version__} {version('espnet')}"
    return digest([versions.encode(), *(path.read_bytes() for path in sources)])
