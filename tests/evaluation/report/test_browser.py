"""The page in a real browser: nothing broken, nothing too wide, everything can be heard."""

import importlib.util
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


def check(found, width):
    assert found["inner_width"] == width
    assert found["console"] == []
    assert found["requests"] == ["/", "/page"]
    assert [r for r in found["resources"] if not r.startswith("data:")] == []
    assert found["images"]
    assert min(min(size) for size in found["images"]) > 0
    assert found["broken"] == 0
    assert found["wide"] == []
    assert found["scroll_width"] <= width
    assert found["small"] == 0
    for audio in found["audio"]:
        assert audio["error"] is None
        assert audio["duration"] == pytest.approx(0.5, abs=0.05)  # what the test set has


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_report_in_a_browser(report, tmp_path, width, dark):
    found = browser.browse((report / "index.html").read_text(), tmp_path, width, dark)
    check(found, width)
    assert found["audio"]
    light_text = sum(map(int, found["color"][4:-1].split(","))) > 3 * 128
    assert light_text == dark


def test_a_bad_page_is_seen(tmp_path):
    """Negative control: each defect is found."""
    found = browser.browse(
        '<!DOCTYPE html><body><img src="data:image/png;base64,AAAA"><p style="width: 900px">x</p>'
        '<img src="/gone.png"><audio src="data:audio/flac;base64,AAAA"></audio>'
        "<script>console.error('oh'); undefined_name()</script>",
        tmp_path,
    )
    assert len(found["console"]) == 2  # the error and the exception
    assert "/gone.png" in found["requests"]
    assert any(r.endswith("/gone.png") for r in found["resources"])
    assert found["broken"] == 2
    assert any(w.startswith("P.") for w in found["wide"])
    assert found["scroll_width"] > 360
    assert found["audio"][0]["error"]
