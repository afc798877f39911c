import re
from types import SimpleNamespace

import pytest

from espnet_layerskip.evaluation.choose import Trial
from espnet_layerskip.evaluation.scoring import Interval
from espnet_layerskip.evaluation.trial import ENCODER, FULL, SKIP, STOCK, WAVE, Ceiling, TrialResult
from espnet_layerskip.evaluation.trial_report import trial_page, verdict
from espnet_layerskip.evaluation.trial_settings import Choice
from espnet_layerskip.method.settings import OFF, SkipSettings

SETTING = SkipSettings(0.9, (1, 1), "full", (4,))


def trial(settings, rate, by, skipped, flops):
    interval = Interval(*by)
    return Trial(settings, rate, interval, interval, skipped, flops, None)


def result(
    kept_by="upper limit",
    skip=0.4,
    fast=0.6,
    labelled=True,
    no_fast="",
    by=(0.5, -0.25, 1.25),
    **changes,
):
    """A trial that has been made up: seconds by form; full depth 10 %, with skipping 10.5 %."""
    opened = SimpleNamespace(
        source="exp/asr",
        stock_class="ConformerEncoder",
        num_layers=8,
        no_fast=no_fast,
        no_gates="",
        trained=(2, 4),
        usable=(2, 4),
        own_settings=None,
        has_decoder=False,
    )
    for name in list(changes):
        if name in vars(opened):
            setattr(opened, name, changes.pop(name))
    data = SimpleNamespace(labelled=labelled, notes=("x left out",), describe=lambda: "9 of 10")
    full = trial(OFF, 10.0, (0.0, 0.0, 0.0), 0.0, 100)
    chosen = trial(SETTING, 10.5, by, 0.45, 80)
    rows = {STOCK: [1.0] * 5, FULL: [fast] * 5, SKIP: [skip] * 5}
    values = {
        "metric": "wer" if labelled else "disagreement",
        "times": {ENCODER: rows, WAVE: rows},
        "timed_seconds": 20.0,
        "trials": [full, chosen],
        "choice": Choice(chosen, kept_by),
        "stock_rate": 10.0 if labelled else None,
        "differing": 0,
        "ceiling": Ceiling(4, 8, 0.2, 0.4, 0.5, True),
        "environment": {
            "num_threads": 1,
            "load_before": None,
            "load_after": [0.5],
            "usable_cores": 2,
        },
    }
    if changes.get("choice", True) is None:
        rows.pop(SKIP)
    return TrialResult(opened=opened, data=data, **(values | changes))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {},
            [
                "runs 2.50 times as fast as ESPnet's class (wave to text 2.50): 1.67 by the exact "
                "fast form and 1.50 by skipping on top, at no loss that can be seen: WER 10.00 % "
                "-> 10.50 % (+0.50 points, 95 % interval -0.25 to +1.25).",
            ],
        ),
        ({"kept_by": "measured"}, ["at about the same WER: WER 10.00 % -> 10.50 %"]),
        ({"kept_by": "nothing"}, ["but it may cost accuracy: WER 10.00 % -> 10.50 %"]),
        ({"kept_by": "nothing", "by": (0.5, 0.1, 0.9)}, ["but it costs accuracy: WER 10.00 %"]),
        (
            {"kept_by": "nothing", "labelled": False},
            ["but it may cost accuracy: 10.50 % of the tokens differ from full depth (95 % inter"],
        ),
        (
            {"skip": 0.6},
            [
                "The exact fast form alone makes this model's encoder 1.67 times as fast as "
                "ESPnet's class, with the same transcripts; skipping does not pay as it is on "
                "speech of these lengths (1.00 times as fast): WER 10.00 % -> 10.50 %",
            ],
        ),
        ({"no_fast": "legacy", "fast": 1.0}, ["2.50 times as fast", "by skipping, at no loss"]),
        (
            {"choice": None, "trained": (), "usable": ()},
            ["1.67 times as fast", "cannot skip as it is: no intermediate CTC head was trained"],
        ),
        (
            {"choice": None, "trained": (7,), "usable": ()},
            ["trained heads sit after layers 7 of 8, too deep"],
        ),
        ({"choice": None}, ["heads after layers 2, 4 of 8 call hardly any frame blank"]),
        ({"choice": None, "no_gates": "it has no CTC head"}, ["as it is: it has no CTC head."]),
        (
            {"choice": None, "no_fast": "legacy", "no_gates": "it has a postencoder"},
            ["Nothing to gain without training", "has no fast form here", "postencoder"],
        ),
    ],
)
def test_the_verdict(changes, parts):
    text = verdict(result(**changes))
    assert all(part in text for part in parts), text
    assert text.count(". ") == 0  # one sentence
    page = trial_page(result(**changes))
    assert " ".join(page.split("\n\n")[0].split()) == text


def test_the_same_transcripts_are_only_claimed_where_they_are():
    assert "same transcripts" not in verdict(result(skip=0.6, differing=1))
    assert "differs from ESPnet's class in 1 transcripts" in plain(result(differing=1))


def plain(found):
    return re.sub(r"\s+", " ", trial_page(found))


def test_the_page():
    page = trial_page(result())
    assert max(map(len, page.splitlines())) <= 96
    table = page.split("\n\n")[1].splitlines()
    assert [line.split()[-1] for line in table[1:]] == ["0", "0", "45"]
    assert "2.50 x   20.0 ms" in table[3]
    text = plain(result())
    assert "Setting: threshold=0.9 extension=1,1 context=full gates=4 (of 1 tried" in text
    assert "50 % of the frames are blank" in text
    assert "20 % is the subsampling and 40 % layers 1 to 4 of 8" in text
    # half of the upper 40 % is left: 80 %
    assert "the rest would be 80 % of what full depth takes" in text
    assert "the arithmetic is 80 % and the time 67 %" in text
    assert "espnet-layerskip retrofit --model exp/asr --data" in text
    assert "optimistic" in text
    assert "X left out." in text
    assert "busy" not in text


def test_what_a_newcomer_may_have_got_wrong_is_said():
    found = result()
    wrong = trial(OFF, 97.0, (0.0, 0.0, 0.0), 0.0, 100)
    assert "written in another way" in plain(result(trials=[wrong, found.trials[1]]))
    assert "the attention decoder is not used" in plain(result(has_decoder=True))
    assert "No fast form: legacy." in plain(result(no_fast="legacy"))
    busy = found.environment | {"load_after": [9.0]}
    assert "The machine is busy (load 9 on 2 cores)" in plain(result(environment=busy))
    own = SkipSettings(0.8, (0, 0), "full", (4,))
    tried = [*found.trials, trial(own, 11.0, (1.0, 0.0, 2.0), 0.6, 70)]
    assert "The model's own, threshold=0.8" in plain(result(own_settings=own, trials=tried))


def test_without_a_head_times_are_all():
    rows = {STOCK: [1.0] * 5, FULL: [0.5] * 5}
    found = result(
        choice=None, trials=[], ceiling=None, differing=None, times={ENCODER: rows}, no_gates="none"
    )
    text = plain(found)
    assert "2.00 times as fast" in text
    assert "retrofit" not in text
    assert "Without a CTC head nothing was decoded" in text
