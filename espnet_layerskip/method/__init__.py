"""The method: the gate, the packing of frames, the walk over the layers, the CTC head."""
