"""Commands that stand in for ESPnet's own: ``python -m espnet_layerskip.bin.<name>``."""
