"""What our programs import late: their start depends on it."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from espnet_layerskip._late_imports import import_when_used


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that says when it is imported, and forgets itself afterwards."""
    folder = tmp_path / "slowly_imported"
    folder.mkdir()
    (folder / "__init__.py").write_text("print('outer'); VALUE = 1\n")
    (folder / "inner.py").write_text("print('inner'); VALUE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "slowly_imported"
    for name in ("slowly_imported", "slowly_imported.inner"):
        sys.modules.pop(name, None)


def test_a_module_is_imported_when_it_is_used(package, capsys):
    import_when_used(package)
    import_when_used(f"{package}.inner")
    module = importlib.import_module(package)
    importlib.import_module(f"{package}.inner")
    assert not hasattr(module, "__file__")  # as those ask who look through sys.modules
    assert importlib.util.find_spec(package).origin.endswith("__init__.py")
    assert capsys.readouterr().out == ""
    assert module.inner.VALUE == 2
    assert capsys.readouterr().out == "inner\n"
    assert module.VALUE == 1
    assert importlib.import_module(package).VALUE == 1
    assert capsys.readouterr().out == "outer\n"
    with pytest.raises(AttributeError, match="MISSING"):
        module.MISSING  # noqa: B018


def test_what_is_missing_stays_missing():
    import_when_used("not_installed_here")
    import_when_used("not_installed_here.inner")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("not_installed_here")


def test_a_name_that_others_import_is_imported_when_it_is_called(package, capsys, tmp_path):
    import_when_used(package, "double", "Table")
    source = "print('outer')\ndef double(x): return 2 * x\nclass Table:\n    size = 3\n"
    (tmp_path / package / "__init__.py").write_text(source)
    module = importlib.import_module(package)
    double, table = module.double, module.Table
    assert capsys.readouterr().out == ""
    assert (double(2), table.size, double(3)) == (4, 3, 6)
    assert capsys.readouterr().out == "outer\n"


def test_what_one_recogniser_does_not_need_is_not_imported_at_the_start():
    check = (
        "import sys\n"
        "from espnet_layerskip._late_imports import start_sooner\n"
        "start_sooner(check_types=False)\n"
        "import espnet_layerskip.inference.speech2text\n"
        "late = {'inflect', 'nltk.data', 'g2p_en.g2p', 'scipy.stats', 'hydra', 'numba',\n"
        "        'typeguard._checkers', 'torch._dynamo', 'espnet2.enh.espnet_model'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
        "import torch, typeguard\n"
        "assert torch.compiler.disable.__module__ == 'torch.compiler'\n"
        "assert typeguard.check_type(1, int) == 1\n"
        "from espnet2.main_funcs.calculate_all_attentions import calculate_all_attentions\n"
        "import scipy.signal\n"
        "assert len(scipy.signal.convolve([1, 2], [1, 1])) == 3\n"
        "from espnet2.text.cleaner import TextCleaner\n"
        "try:\n"
        "    import tacotron_cleaner\n"
        "except ImportError:\n"
        "    sys.exit()\n"
        "assert TextCleaner('tacotron')('it cost 12 dollars') == 'IT COST TWELVE DOLLARS'\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
