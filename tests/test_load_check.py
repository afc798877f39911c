"""tools/load_check.py: each part in small, and what each would notice."""

import contextlib
import importlib.util
import json
import resource
from pathlib import Path

import pytest

from espnet_layerskip.files import read_table

SCRIPT = Path(__file__).parent.parent / "tools" / "load_check.py"
SMALL = "--utterances 8 --threads 3 --seconds 0.1 --day_hours 0.01 --long_hours 0.01 --batch_size 4"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("load_check", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    found.MISSING_EACH = 6
    return found


def run(tool, capsys, model, *options):
    """Run the program in small; return its status and the cells of its rows by part."""
    status = tool.main([*SMALL.split(), "--model", str(model), "--max_growth", "500", *options])
    _, _, *rows = (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    return status, {row[0]: row[1:] for row in rows}


def test_all_parts(tool, models, capsys):
    status, rows = run(tool, capsys, models["skip"])
    wrong = {part: row[-1] for part, row in rows.items()}
    assert wrong == dict.fromkeys(("list", "threads", "day", "long"), "nothing")
    assert status == 0
    assert rows["list"][0] == "8 utterances"
    assert float(rows["day"][1]) >= 0.01
    assert rows["long"][0].startswith("2 files of 0.01 h")


FAULTS = {
    "lost": ("list", "6 of 7 and 1 failed"),
    "swapped": ("list", "not in order"),
    "changed": ("list", "another text of the same file: utt0000005"),
    "not refused": ("list", "refused"),
    "of another thread": ("threads", "differs"),
    "fewer samples": ("day", "not all was heard"),
    "stops early": ("long", "words in the first tenth, 0 in the last; the end was not heard"),
    "two texts": ("long", "two texts of one file"),
    "back in time": ("long", "times go back"),
}


def verb_with(fault, rate):
    """Return a transcribe that prints the name of a file as its text, and has a fault."""

    def verb(argv):
        given = dict(zip(argv[1::2], argv[2::2], strict=True))
        rows = read_table(given["--wav-scp"])
        failed = [name for name, path in rows.items() if not Path(path).exists()]
        texts = {name: Path(path).stem for name, path in rows.items() if name not in failed}
        times = [i / 10 for i in range(120 if fault == "stops early" else 400)]
        names, simulated = list(texts), next(iter(rows.values())).endswith(".flac")
        if simulated:
            number = 0 if fault == "fewer samples" else rate
            texts = {name: str(int(float(text) * number)) for name, text in texts.items()}
        if names[0] == "a" and "long" not in texts.values():
            pass  # the short list that comes before the part
        elif fault == "lost":
            del texts[names[0]]
        elif fault == "swapped":
            texts = {name: texts[name] for name in reversed(names)}
        elif fault == "changed":
            texts[names[4]] = "other"
        elif fault == "not refused":
            failed[0] = "other"
        elif fault == "two texts":
            texts["a"] = "other"
        elif fault == "back in time":
            times[7] = 0.0
        ctm = [f"{name} 1 {start} 0.1 word\n" for name in texts for start in times]
        Path(given["--times"]).write_text("".join(ctm))
        stats = {"read": len(rows), "failed": failed, "audio_seconds": 1.0}
        Path(given["--stats"]).write_text(json.dumps(stats))
        print("".join(f"{name} {text}\n" for name, text in texts.items()), end="")
        return 0

    return verb


class Model:
    """Says the length of what it hears; something else in a batch if it ``confuses``."""

    def __init__(self, confuses):
        self.confuses = confuses

    def __call__(self, wave):
        return [(str(len(wave)),)]

    def decode_batch(self, waves):
        confused = self.confuses and len(waves) > 1
        return [[("other",)] if confused else self(wave) for wave in waves]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_noticed(tool, capsys, monkeypatch, fault):
    model = Model(fault == "of another thread")
    monkeypatch.setattr(tool, "espnet_layerskip", verb_with(fault, tool.RATE))
    monkeypatch.setattr(tool.speech2text, "load_model", lambda *args, **kwargs: model)
    part, message = FAULTS[fault]
    status, rows = run(tool, capsys, "none", "--parts", part, "--long_hours", "0.03")
    assert status == 1
    assert message in rows[part][-1]


@pytest.mark.parametrize(("last", "found"), [(150.0, "nothing"), (151.0, "memory grows")])
def test_memory_that_grows_is_noticed(tool, capsys, monkeypatch, last, found):
    samples = [90.0, 100.0, 90.0, 300.0, 300.0, 300.0, 90.0, last, 90.0]
    monkeypatch.setattr(tool, "watched", lambda: contextlib.nullcontext(samples))
    monkeypatch.setattr(tool, "espnet_layerskip", verb_with(None, tool.RATE))
    monkeypatch.setattr(tool.speech2text, "load_model", lambda *args, **kwargs: Model(False))
    status, rows = run(tool, capsys, "none", "--parts", "list", "--max_growth", "50")
    assert (status, rows["list"][-2:]) == (int(last > 150), [f"100, 300, {last:.0f}", found])


def test_memory_is_that_of_this_process(tool):
    with tool.watched() as samples:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert len(samples) >= 3
    assert 0.1 * most < min(samples) <= max(samples) <= 1.01 * most
