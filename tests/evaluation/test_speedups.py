import re

import pytest

from espnet_layerskip.evaluation.contenders import FULL, GREEDY_ON, ON, STOCK
from espnet_layerskip.evaluation.speedups import SPEEDUPS, TWIN, speedups


def row(name, median, scope="encoder", wer=10.0, status="ok", key=(10.0, 1, 2)):
    return {
        "name": name,
        "scope": scope,
        "audio_seconds": key[0],
        "batch_size": key[1],
        "threads": key[2],
        "median_s": median,
        "wer": wer,
        "status": status,
    }


def test_ratios_of_the_headline_and_of_every_condition():
    rows = [row(ON, 2.0), row(FULL, 3.0), row(STOCK, 5.0)]
    rows += [row(ON, 1.0, key=(3.0, 1, 1)), row(FULL, 1.5, key=(3.0, 1, 1))]
    found = speedups(rows, 1.0)
    assert found["encoder_vs_stock"] == 2.5
    assert found["encoder_vs_full_depth"] == 1.5
    assert found["headline"] == {"audio_seconds": 10.0, "batch_size": 1, "threads": 2}
    assert found["e2e_vs_stock_beam10"] is None
    assert found["reasons"]["e2e_vs_stock_beam10"] == "scope e2e was not run"
    assert "encoder_vs_stock" not in found["reasons"]
    assert {*SPEEDUPS, "reasons", "headline", "conditions"} == set(found)
    short, long = found["conditions"]
    assert (short["audio_seconds"], short["encoder_vs_full_depth"]) == (3.0, 1.5)
    assert short["reasons"]["encoder_vs_stock"] == f"there is no row {STOCK}"
    assert long["encoder_vs_stock"] == 2.5


def test_headline_that_was_not_measured():
    found = speedups([row(ON, 1.0, key=(3.0, 1, 1)), row(FULL, 2.0, key=(3.0, 1, 1))], 1.0)
    assert found["encoder_vs_full_depth"] is None
    assert found["reasons"]["encoder_vs_full_depth"] == "this condition was not measured"
    assert found["conditions"][0]["encoder_vs_full_depth"] == 2.0


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row(ON, 1.0, status="failed: empty"), row(STOCK, 2.0)], f"{ON} failed: empty"),
        ([row(ON, 1.0), row(STOCK, None, status="failed: x")], f"{STOCK} failed: x"),
        ([row(ON, 1.0, wer=10.2), row(STOCK, 2.5)], "WER of .* 10.20, .* 1 % .* 10.00 .* 2.50"),
    ],
)
def test_no_ratio_that_flatters(rows, reason):
    found = speedups(rows, 1.0)
    assert found["encoder_vs_stock"] is None
    assert re.search(reason, found["reasons"]["encoder_vs_stock"])


def test_a_wer_within_the_allowance():
    rows = [row(GREEDY_ON, 1.0, "e2e", wer=10.1), row("stock_beam10", 20.0, "e2e")]
    assert speedups(rows, 1.0)["e2e_vs_stock_beam10"] == 20.0
    assert speedups(rows, 0.9)["e2e_vs_stock_beam10"] is None


def test_a_stock_twin_takes_the_place_of_a_class_that_cannot_hold_our_weights():
    rows = [row(ON, 1.0), row(STOCK, None, status="failed: cannot be built"), row(TWIN, 3.0)]
    assert speedups(rows, 1.0)["encoder_vs_stock"] == 3.0
