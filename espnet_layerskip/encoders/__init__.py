"""Encoders with dynamic layer-skipping: subclasses of ESPnet's, same parameter names."""
