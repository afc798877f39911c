import re
import sys
import xml.etree.ElementTree as ET

import pytest

from espnet_layerskip.evaluation.report import canvas


@pytest.fixture
def drawing():
    with canvas.style():
        figure = canvas.new_figure(2.0)
        ax = figure.subplots()
        [line] = ax.plot([0, 1], [0, 1], "o-", color=canvas.BLUE)
        line.set_gid("dot")
        ax.set_xlabel("x")
        return canvas.finish(
            figure, "fig1", "A & B", 'Look <here>, "now".', "make it", {"dot": "<1>"}
        )


def test_files(drawing):
    assert drawing.png.startswith(b"\x89PNG")
    assert b"make it" in drawing.png  # the command is in the file
    root = ET.fromstring(drawing.svg)
    assert root.attrib["width"] == f"{72 * canvas.WIDTH:g}pt"
    assert "make it" in drawing.svg


def test_svg_for_the_page(drawing):
    svg = canvas.inline_svg(drawing)
    ET.fromstring(svg.replace("xlink:href", "href"))  # well-formed
    assert 'role="img"' in svg
    assert "A &amp; B. Look &lt;here&gt;, &quot;now&quot;." in svg
    assert "<title>&lt;1&gt;</title>" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg), "colours follow the page"
    assert "var(--blue)" in svg
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert all(name.startswith("fig1-") for name in ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert used
    assert used <= ids


def test_a_users_style_changes_nothing(drawing):
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none"}):
        with canvas.style():
            assert mpl.rcParams["font.size"] == 10
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_without_the_libraries_of_the_extra(module, monkeypatch):
    canvas.check_installed()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=rf"{module}.*pip install 'espnet_layerskip\[figures\]'.*{module}"
    ):
        canvas.check_installed()


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_of_the_page_can_be_told_from_its_background(scheme):
    """WCAG: 4.5 for text, 3 for lines and markers; every colour of the figures is there."""
    from importlib.resources import files

    css = files("espnet_layerskip.evaluation.report").joinpath("page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    colors = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme]))
    assert set(canvas._VARIABLES.values()) <= set(colors)
    paper = luminance(colors["paper"])
    for name, least in (
        *(("ink", 4.5), ("muted", 4.5), ("vermillion", 3.0)),
        *((name, 3.0) for name in ("blue", "green", "purple")),
    ):
        pair = sorted((luminance(colors[name]), paper))
        contrast = (pair[1] + 0.05) / (pair[0] + 0.05)
        assert contrast >= least, f"{name}: {contrast:.2f}"
    if scheme == 0:
        assert {v: k for k, v in canvas._VARIABLES.items()}.items() <= colors.items()
