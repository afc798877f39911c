import dataclasses
import shutil

import numpy as np
import pytest

from espnet_layerskip.evaluation.cache import (
    PACKAGE_DIR,
    DecodingCache,
    code_digest,
    digest,
    speech_digest,
)
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.inference.skip_count import SkipCount

DECODED = Decoded({"u": "A Ä", "v": ""}, SkipCount(4, 1, 10, 16), 123, ["v"])


def test_round_trip_and_damage(tmp_path):
    cache = DecodingCache(tmp_path / "new")
    assert cache.get("k") is None
    cache.put("k", DECODED)
    assert cache.get("k") == DECODED
    assert cache.get("other") is None
    (tmp_path / "new" / "k.json").write_text('{"hyps": {"u": "A')
    assert cache.get("k") is None
    (tmp_path / "new" / "k.json").write_text('{"hyps": {}}')
    assert cache.get("k") is None


def test_a_decoding_that_cannot_be_kept_is_not_lost(tmp_path, capsys):
    (tmp_path / "file").touch()
    DecodingCache(tmp_path / "file").put("k", DECODED)
    assert "cannot be kept for later runs" in capsys.readouterr().err


def test_keys_tell_parts_apart():
    assert digest([b"a", b"b"]) == digest([b"a", b"b"])
    parts = ([b"a", b"b"], [b"ab"], [b"b", b"a"], [b"a", b"b", b""])
    assert len(set(map(digest, parts))) == 4


def test_speech_digest_follows_names_and_samples():
    samples = np.zeros(10, dtype=np.float32)
    data = TestSet([Speech("u", samples, 16000)], {"u": "A"}, {"u": "s"})
    same = dataclasses.replace(data, text={"u": "OTHER"})
    assert speech_digest(same) == speech_digest(data)
    for other in (Speech("v", samples, 16000), Speech("u", samples + 1, 16000)):
        assert speech_digest(TestSet([other], {}, {})) != speech_digest(data)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package's sources."""
    found = tmp_path_factory.mktemp("copy") / "package"
    return shutil.copytree(PACKAGE_DIR, found, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize(
    ("module", "decodes"),
    [
        ("evaluation/decode.py", True),
        ("evaluation/flops.py", True),
        ("evaluation/systems.py", True),
        ("method/walk.py", True),
        ("encoders/fast/conformer.py", True),
        ("inference/posteriors.py", True),
        ("decoding/greedy.py", True),
        ("training/model.py", True),
        ("verbs/compare.py", False),
        ("evaluation/report/page.py", False),
    ],
)
def test_key_covers_the_code_that_decodes(package, module, decodes):
    before = code_digest(package)
    assert before == code_digest()
    source = package / module
    text = source.read_text()
    source.write_text(f"{text}# changed\n")
    try:
        assert (code_digest(package) != before) == decodes
    finally:
        source.write_text(text)
