from types import SimpleNamespace

import pytest

from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.scoring import characters, words
from espnet_layerskip.evaluation.trial_settings import (
    few,
    judged,
    pick,
    settings_to_try,
)
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import OFF, SkipSettings

TEXT = {f"u{i}": "a b c d e" for i in range(2000)}


class Encoder:
    """What the settings ask of an encoder."""

    def __init__(self, gates, contexts=("full", "packed_original")):
        self.gate_layer_idx, self.contexts = list(gates), contexts
        self.settings = SkipSettings(1.0, (1, 1), "packed", tuple(gates), 1.0, 0.02)

    def check_context(self, context):
        if context not in self.contexts:
            raise ValueError(context)


def opened(gates, usable=None, own=None, **options):
    usable = tuple(gates if usable is None else usable)
    encoder = Encoder(gates, **options)
    return SimpleNamespace(encoder=encoder, gates=tuple(gates), usable=usable, own_settings=own)


def test_each_gate_alone_and_neighbours_together():
    off, *tried = settings_to_try(opened([2, 4, 6]))
    assert off.full_depth
    gates = [one.gates_in_use for one in tried]
    assert gates.count((2,)) == gates.count((4,)) == gates.count((6,)) == 6
    assert gates.count((2, 4)) == gates.count((4, 6)) == 1
    assert len(tried) == len(set(tried)) == 20
    assert {one.skip_context for one in tried} == {"full", "packed_original"}


def test_too_deep_gates_are_left_out_and_forced_ones_go_together():
    assert {o.gates_in_use for o in settings_to_try(opened([2, 7], usable=[2]))[1:]} == {(2,)}
    forced = settings_to_try(opened([2, 7], usable=[2]), forced=True)[1:]
    assert {one.gates_in_use for one in forced} == {(2, 7)}


def test_a_context_that_the_layers_cannot_have_is_not_tried():
    only = settings_to_try(opened([2], contexts=("packed",)))[1:]
    assert {one.skip_context for one in only} == {"packed"}


def test_the_models_own_setting_is_tried_too():
    own = SkipSettings(0.7, (3, 0), "full", (2,), 1.0, 0.02)
    assert own in settings_to_try(opened([2, 4], own=own))
    assert len(settings_to_try(opened([2, 4], own=own))) == len(settings_to_try(opened([2, 4]))) + 1
    of_other_gates = SkipSettings((0.7, 0.8, 0.9), (3, 0), "full", (2,), 1.0, 0.02)
    assert of_other_gates not in settings_to_try(opened([2, 4], own=of_other_gates))
    assert settings_to_try(opened([4], own=own)) == settings_to_try(opened([4])), "it has gate 2"


def test_few_layers_of_many():
    assert few([6, 12, 15, 21]) == (6, 12, 15, 21)
    assert few(range(1, 12)) == (1, 4, 8, 11)


def decoded(wrong, flops, hyp="a b c d e"):
    """Transcripts with so many of 200 words wrong, spread evenly."""
    each, rest = divmod(wrong * len(TEXT) // 40, len(TEXT))
    hyps = {}
    for i, utt in enumerate(TEXT):
        bad = each + (i < rest)
        hyps[utt] = " ".join(["x"] * bad + hyp.split()[bad:])
    return Decoded(hyps, SkipCount(10, 10 - flops // 10, 0, 0), flops)


def trials(*rows, text=TEXT):
    settings = [OFF] + [SkipSettings(round(0.5 + 0.01 * i, 2)) for i in range(len(rows) - 1)]
    return judged(settings, [decoded(*row) for row in rows], text, words, str.split)


@pytest.mark.parametrize(
    ("rows", "flops", "kept_by"),
    [
        # the cheapest that changes nothing, not the cheapest of all
        ([(20, 100), (20, 60), (20, 50), (30, 40)], 50, "upper limit"),
        # better as measured, but the interval reaches over the budget
        ([(20, 100), (30, 40), (19, 70)], 70, "upper limit"),
        # nothing within: most saved for what it costs
        ([(20, 100), (60, 50), (30, 60), (28, 85)], 60, "nothing"),
        # of a saving of less than a tenth nothing is left
        ([(20, 100), (20, 95)], None, None),
    ],
)
def test_the_rule(rows, flops, kept_by):
    choice = pick(trials(*rows))
    assert (choice and choice.trial.encoder_flops, choice and choice.kept_by) == (flops, kept_by)


def test_as_measured_where_the_interval_is_too_wide():
    found = trials((20, 100), (20, 50))
    errors = [t.increase for t in found]
    assert errors[1].difference == 0.0
    # the same number of errors, elsewhere
    other = Decoded(dict(TEXT) | {f"u{i}": "x b c d e" for i in range(1000, 2000)}, SkipCount(), 50)
    full = decoded(20, 100)
    choice = pick(judged([OFF, SkipSettings(0.9)], [full, other], TEXT, words, str.split))
    assert choice.kept_by == "measured"
    assert choice.trial.increase.high > 0.2


def test_without_transcripts_full_depth_takes_their_place():
    found = trials((0, 100), (2, 50), text={})
    assert [t.rate for t in found] == [0.0, 1.0]
    assert found[1].increase.high >= 1.0
    assert not found[1].fits
    assert pick(found).kept_by == "nothing"
    assert pick(trials((0, 100), (0, 50), text={})).kept_by == "upper limit"


def test_full_depth_that_recognises_nothing_is_an_error():
    empty = Decoded(dict.fromkeys(TEXT, ""), SkipCount(), 100)
    for text in (TEXT, {}):
        with pytest.raises(ValueError, match="wrote nothing for any of"):
            judged([OFF], [empty], text, words, characters)
