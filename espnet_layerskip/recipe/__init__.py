"""Small programs behind egs2/TEMPLATE/asr1/asr.sh: ``python -m espnet_layerskip.recipe.X``.

None of them imports ESPnet, so that each starts in a fraction of a second:
the scripts set ``ESPNET_LAYERSKIP_NO_REGISTER=1`` for them.
"""
