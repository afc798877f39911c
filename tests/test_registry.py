"""Registration with ESPnet's tasks, and that an import changes nothing else."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.registry import ENCODER_TASKS, TASKS, register
from espnet_layerskip.training.model import LayerSkipASRModel

# A library that ESPnet 202511 brings along, and that was once put off for everybody.
USE_NLTK = "from nltk.tokenize import word_tokenize; import nltk.data"
if find_spec("nltk") is None:
    USE_NLTK = "pass"


def choices():
    register()
    tasks = [sys.modules[name] for name in TASKS if name in sys.modules]
    return [(task.encoder_choices, task.model_choices) for task in tasks]


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_registered_everywhere_and_idempotent():
    register()
    for encoders, models in choices():
        for name, encoder in ENCODERS.items():
            assert encoders.get_class(name) is encoder
        assert models.get_class("layerskip") is LayerSkipASRModel
        assert "conformer" in encoders.classes  # nothing of ESPnet's is lost


def test_owsm_ctc_knows_the_encoders():
    """Also where its task is imported only after the registration."""
    register()
    task = import_module(ENCODER_TASKS[0])
    for name, encoder in ENCODERS.items():
        assert task.encoder_choices.get_class(name) is encoder
    assert "e_branchformer_ctc" in task.encoder_choices.classes
    assert "layerskip" not in task.model_choices.classes  # an ASR model
    del task.encoder_choices.classes["layerskip_e_branchformer_ctc"]
    register()
    assert "layerskip_e_branchformer_ctc" in task.encoder_choices.classes


def test_names_are_lower_case_as_espnet_looks_them_up():
    for encoders, models in choices():
        for name in (*encoders.classes, *models.classes):
            assert name == name.lower()


def test_the_import_is_cheap_and_changes_no_other_library():
    before = "import sys, os; before = set(sys.modules), list(sys.argv), dict(os.environ)\n"
    run(
        before + "import espnet_layerskip\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before[0]}\n"
        "heavy = {'torch', 'numpy', 'espnet2', 'nltk', 'g2p_en', 'tacotron_cleaner'}\n"
        "assert not new & heavy, new & heavy\n"
        "assert (list(sys.argv), dict(os.environ)) == before[1:]\n"
        f"{USE_NLTK}\n"
    )


@pytest.mark.slow
def test_the_import_registers_whatever_the_program_is_called():
    """Also where ESPnet was imported before: there all of ours is forgotten, then imported anew."""
    run(
        "import sys; sys.argv[0] = 'x.py'; finders = list(sys.meta_path)\n"
        "import espnet_layerskip\n"
        "import espnet2.tasks.asr\n"
        "from espnet2.tasks.asr import encoder_choices, model_choices\n"
        "for once_more in (True, False):\n"
        "    ours = [name for name in encoder_choices.classes if name.startswith('layerskip')]\n"
        "    assert 'layerskip_conformer' in ours\n"
        "    assert 'layerskip' in model_choices.classes\n"
        "    if once_more:\n"
        "        for name in ours:\n"
        "            del encoder_choices.classes[name]\n"
        "        del model_choices.classes['layerskip']\n"
        "        for name in [n for n in sys.modules if n.split('.')[0] == 'espnet_layerskip']:\n"
        "            del sys.modules[name]\n"
        "        sys.meta_path[:] = finders\n"
        "        sys.argv[0] = 'espnet-layerskip'\n"
        "        import espnet_layerskip\n"
        f"{USE_NLTK}\n"
    )


@pytest.mark.slow
def test_espnet3_has_its_own_table():
    try:
        import_module("espnet3.systems.esp2_asr.task")
    except ImportError:
        pytest.skip("this ESPnet has no espnet3.systems.esp2_asr")
    run(
        "import espnet_layerskip\n"
        "from espnet3.systems.esp2_asr.task import encoder_choices\n"
        "assert 'layerskip_conformer' in encoder_choices.classes\n"
    )
