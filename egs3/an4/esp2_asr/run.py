#!/usr/bin/env python3
"""ESPnet3's entry point; the configurations name the classes of espnet_layerskip."""

from espnet3.systems.esp2_asr.system import ASRSystem
from espnet3.systems.launch import launch

if __name__ == "__main__":
    launch(ASRSystem)
