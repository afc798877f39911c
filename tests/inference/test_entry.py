"""N-best entries as those who read ESPnet's know them."""

import copy
import pickle

import pytest
import torch

from espnet_layerskip._compat import inference_module
from espnet_layerskip.decoding.hypothesis import Hypothesis, Word
from espnet_layerskip.inference.entry import NBestHypothesis
from espnet_layerskip.inference.speech2text import load_model

OURS = Hypothesis([3, 4], [0, 2], [1, 3], -1.5, {"ctc": -1.5}, words=[Word("AB", 0.0, 0.1)])


def test_it_is_espnets_hypothesis():
    hyp = NBestHypothesis.of(OURS, sos=8, eos=9)
    assert isinstance(hyp, inference_module().Hypothesis)
    assert hyp.yseq.tolist() == [8, 3, 4, 9]
    assert hyp.yseq.dtype == torch.int64
    assert (hyp.score, hyp.scores, hyp.states) == (-1.5, {"ctc": -1.5}, {})
    assert hyp.asdict()["yseq"] == [8, 3, 4, 9]
    assert (hyp.token_int, hyp.token_frames, hyp.words) == ([3, 4], [0, 2], OURS.words)


def test_it_is_compared_copied_and_pickled():
    hyp, same = (NBestHypothesis.of(OURS, 8, 9) for _ in range(2))
    assert hyp == same
    assert (hyp != same) is False
    assert hyp != NBestHypothesis.of(Hypothesis([3, 5], [0, 2], [1, 3], -1.5), 8, 9)
    assert hyp != tuple(hyp)
    assert pickle.loads(pickle.dumps(hyp)) == hyp == copy.copy(hyp)
    other = hyp._replace(score=-2.0)
    assert (other.score, other.words) == (-2.0, OURS.words)
    assert hyp != other


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        ("skip", {"decoder_type": "greedy"}, {"ctc"}),
        ("skip", {"decoder_type": "prefix_beam"}, {"ctc"}),
        ("hybrid", {"beam_size": 2}, {"ctc", "decoder"}),
    ],
)
def test_each_decoder_gives_it(models, waves, kind, options, names):
    speech2text = load_model(models[kind], **options)
    eos = speech2text.asr_model.eos
    for wave in (waves[0], waves[0][:100]):  # the second is too short
        hyp = speech2text(wave)[0][3]
        assert isinstance(hyp, inference_module().Hypothesis)
        tokens = [token for token in hyp.yseq[1:-1].tolist() if token != 0]
        assert tokens == hyp.token_int
        assert (int(hyp.yseq[0]), int(hyp.yseq[-1])) == (speech2text.asr_model.sos, eos)
        if len(wave) > 100:
            assert names <= set(hyp.scores)
