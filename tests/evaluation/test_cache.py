import dataclasses

import numpy as np

from espnet_layerskip.evaluation.cache import DecodingCache, cache_key, code_digest, speech_digest
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.systems import Skipped

DECODED = Decoded({"u": "A Ä"}, Skipped(4, 1, 10, 16), 123, 1.5)


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


def test_keys_tell_parts_apart():
    assert cache_key(["a", "b"]) == cache_key(["a", "b"])
    assert len({cache_key(p) for p in (["a", "b"], ["ab"], ["b", "a"], ["a", "b", ""])}) == 4


def test_speech_digest_follows_names_and_samples():
    samples = np.zeros(10, dtype=np.float32)
    data = TestSet([Speech("u", samples, 16000)], {"u": "A"}, {"u": "s"})
    same = dataclasses.replace(data, text={"u": "OTHER"})
    assert speech_digest(same) == speech_digest(data)
    for other in (Speech("v", samples, 16000), Speech("u", samples + 1, 16000)):
        assert speech_digest(TestSet([other], {}, {})) != speech_digest(data)


def test_code_digest_is_stable():
    assert code_digest() == code_digest()
