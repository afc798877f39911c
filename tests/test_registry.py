from espnet_layerskip._compat import class_choices
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.registry import register
from espnet_layerskip.training.model import LayerSkipASRModel


def test_registered_everywhere_and_idempotent():
    register()
    for encoders, models in class_choices():
        assert encoders.get_class("layerskip_conformer") is LayerSkipConformerEncoder
        assert models.get_class("layerskip") is LayerSkipASRModel
        assert "conformer" in encoders.classes  # nothing of ESPnet's is lost


def test_names_are_lower_case_as_espnet_looks_them_up():
    for encoders, models in class_choices():
        for name in (*encoders.classes, *models.classes):
            assert name == name.lower()
