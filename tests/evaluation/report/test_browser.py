"""The page in a real browser: nothing broken, nothing too wide, everything can be heard and used.

The browser is started once for all of these.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest

# Tests are imported one by one (importlib mode): a module beside them is loaded by its path.
_spec = importlib.util.spec_from_file_location("browser", Path(__file__).parent / "browser.py")
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.find_chromium() is None,
        reason=f"needs a browser ({', '.join(browser.NAMES)}): apt install chromium",
    ),
]
WIDTHS = (360, 768, 1280)
PAY = Path(__file__).parents[3] / "docs" / "when_does_it_pay.html"
BAD = """<!DOCTYPE html><body><img src="data:image/png;base64,AAAA">
<p style="width: 900px">x</p><img src="/gone.png"><audio src="data:audio/flac;base64,AAAA"></audio>
<svg viewBox="0 0 90 90" width="90" height="90"><text x="1" y="20">one</text>
<text x="3" y="22">two</text><text x="80" y="60">three</text></svg>
<script>console.error('oh'); undefined_name()</script>"""


@pytest.fixture(scope="module")
def found(report, tmp_path_factory):
    pages = {"/page": (report / "index.html").read_text(), "/bad": BAD, "/pay": PAY.read_text()}
    visits = [("/page", width) for width in WIDTHS] + [("/bad", 360), ("/pay", 360)]
    return browser.browse(pages, tmp_path_factory.mktemp("browser"), visits)


@pytest.mark.parametrize("width", WIDTHS)
def test_layout(found, width):
    page = found["/page", width]
    assert "failure" not in page, page["failure"]
    assert page["inner_width"] == width
    assert page["wide"] == []
    assert page["scroll_width"] <= width
    assert page["texts"] > 50
    assert page["bad_texts"] == []
    assert page["small"] == 0
    assert min(min(size) for size in page["images"]) > 0
    assert page["broken"] == 0
    for audio in page["audio"]:
        assert audio["error"] is None
        assert audio["duration"] == pytest.approx(0.5, abs=0.05)  # what the test set has


def test_it_needs_nothing_and_complains_of_nothing(found):
    assert [line for line in found["console"] if "/page" in line] == []
    assert found["requests"].count("/page") == len(WIDTHS)
    for width in WIDTHS:
        resources = found["/page", width]["resources"]
        assert [r for r in resources if not r.startswith("data:")] == []


def brightness(color):
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3 / 255


def test_dark_is_dark_and_its_veil_darkens(found):
    light, dark = (found["/page", 768][scheme] for scheme in ("light", "dark"))
    assert brightness(light["background"]) > 0.9 > 0.3 > brightness(light["color"])
    assert brightness(dark["background"]) < 0.2 < 0.8 < brightness(dark["color"])
    assert brightness(light["veil"]) == 1.0
    assert brightness(dark["veil"]) == 0.0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_shows_every_measured_setting(found, report, width):
    """As the page's data say: its rows, and what each makes of the first example."""
    page = (report / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    example = next(iter(data["utterances"].values()))
    numbers = [number for line in data["lines"] for number in line["settings"]]
    first, *steps = found["/page", width]["used"]["slider"]
    assert "(as configured)" in first["setting"]
    assert len(steps) == len(numbers) >= 12  # three thresholds and off, three extensions
    for number, step in zip(numbers, steps, strict=True):
        setting, variant = data["settings"][number], example["variants"][number]
        assert step["setting"].removesuffix(" (as configured)") == setting["threshold"]
        assert step["about"] == " \u00b7 ".join(setting["about"])
        skipped = [run for run in variant["depth"] if run[0] < example["layers"]]
        assert step["veils"] == len(skipped)
        assert len(step["bar"]) == len(variant["depth"]) - len(skipped)
        assert all(4 < height < 9 for height in step["bar"]), "a thin bar above the veil"
        assert step["tokens"] == len(variant["tokens"])
        assert step["text"] == (" ".join(word for word, _ in variant["words"]) or "(nothing)")
        assert sorted(step["rings"]) == [f"figure-wer_{n}" for n in ("change", "flops", "time")]
        assert step["bad_texts"] == []
    assert [s["setting"] for s in steps].count("off") == 3
    assert len({step["depth"] for step in steps}) > 1


def test_the_filter_lets_through_what_it_says(found):
    for label, effects in found["/page", 360]["used"]["filter"]:
        name, count = re.fullmatch(r"(.*) \((\d+)\)", label).groups()
        assert len(effects) == int(count), label
        allowed = {
            "changed": {"worse", "better", "as many errors"},
            "all": {"worse", "better", "as many errors", "unchanged"},
        }.get(name, {name})
        assert set(effects) <= allowed, label


@pytest.mark.parametrize("width", WIDTHS)
def test_the_cursor_follows_pointer_keys_and_audio(found, width):
    cursor = found["/page", width]["used"]["cursor"]
    hover, key = cursor["hover"], cursor["key"]
    frames = [int(re.search(r"frame (\d+)", text)[1]) for _, text in (hover, key)]
    assert frames[1] == frames[0] + 1
    assert key[0] > hover[0]
    for part in (r"p\(blank\) after layer 1: [\d.]+ %", r"layers run: \d of \d", "token: "):
        assert re.search(part, hover[1]), part
    assert cursor["start"][0] < cursor["later"][0]
    assert cursor["later"][1] == pytest.approx(0.25, abs=0.01)
    assert cursor["click"][0] == pytest.approx(hover[0], rel=0.2)


def test_the_calculator(found):
    """docs/when_does_it_pay.html; its answers are those of the tool that wrote it."""
    spec = importlib.util.spec_from_file_location(
        "pay", PAY.parents[1] / "tools" / "when_does_it_pay.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = found["/pay", 360]
    assert "failure" not in page, page["failure"]
    assert page["wide"] == page["bad_texts"] == []
    assert [line for line in found["console"] if "/pay" in line] == []
    rows = tool.read(PAY.with_suffix(".csv"))
    costs, per_second = tool.fit(rows), tool.frames_per_second(rows)
    for (length, skipped, gate, width), labels, answer, _ in page["used"]:
        frames, kept = 30**length * per_second, 1 - skipped / 100
        times = tool.speedup(costs[int(width)], frames, kept, gate)
        verdict = "Worth it" if times >= tool.WORTH else "Not worth it"
        assert answer.startswith(f"{verdict}: {times:.2f} times as fast")
        assert labels[1:] == [str(skipped), f"{gate} of {tool.LAYERS}"]
    assert page["used"][0][2].startswith("Not worth it")
    assert page["used"][1][2].startswith("Worth it")


def test_a_bad_page_is_seen(found):
    """Negative control: each defect is found."""
    page = found["/bad", 360]
    assert len([line for line in found["console"] if "/bad" in line]) == 2  # error and exception
    assert "/gone.png" in found["requests"]
    assert any(r.endswith("/gone.png") for r in page["resources"])
    assert page["broken"] == 2
    assert any(w.startswith("P.") for w in page["wide"])
    assert page["scroll_width"] > 360
    assert page["audio"][0]["error"]
    assert page["bad_texts"] == ["one covers two", "three is cut"]
