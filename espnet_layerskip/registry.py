"""Registration of our classes with ESPnet's task system (ESPnet has no plugin discovery)."""


def register() -> None:
    """Add ``layerskip_conformer`` and ``layerskip`` to ESPnet's class choices.

    Idempotent. After it ``encoder: layerskip_conformer`` and ``model: layerskip`` can be
    used in any ESPnet ASR configuration.
    """
    from espnet_layerskip._compat import class_choices
    from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
    from espnet_layerskip.training.model import LayerSkipASRModel

    for encoders, models in class_choices():
        encoders.classes["layerskip_conformer"] = LayerSkipConformerEncoder
        models.classes["layerskip"] = LayerSkipASRModel
