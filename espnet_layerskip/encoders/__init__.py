"""Layer-skipping forms of ESPnet's encoders, by their name in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_layerskip.encoders.base import LayerSkipEncoder

    ENCODERS: dict[str, type[LayerSkipEncoder]]


def __getattr__(name: str) -> Any:
    """Import on first use: the classes pull in ESPnet."""
    if name == "ENCODERS":
        from espnet_layerskip.encoders.branchformer import LayerSkipBranchformerEncoder
        from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
        from espnet_layerskip.encoders.e_branchformer import LayerSkipEBranchformerEncoder
        from espnet_layerskip.encoders.e_branchformer_ctc import LayerSkipEBranchformerCTCEncoder
        from espnet_layerskip.encoders.transformer import LayerSkipTransformerEncoder

        return {
            "layerskip_branchformer": LayerSkipBranchformerEncoder,
            "layerskip_conformer": LayerSkipConformerEncoder,
            "layerskip_e_branchformer": LayerSkipEBranchformerEncoder,
            "layerskip_e_branchformer_ctc": LayerSkipEBranchformerCTCEncoder,
            "layerskip_transformer": LayerSkipTransformerEncoder,
        }
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
