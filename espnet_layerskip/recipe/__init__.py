"""Programs behind the stages of egs2/TEMPLATE/asr1/asr.sh: ``python -m espnet_layerskip.recipe.X``.

None of them imports ESPnet, so that each starts in a fraction of a second. What only one corpus
needs is in the folder ``local`` of its recipe.
"""
