"""Dynamic int8: products with weights on eight bits, by onnxruntime's own tools."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from espnet_layerskip.export.graph import onnx_module


def quantized(proto: Any) -> Any:
    """Return a graph whose large products with weights are int8, per output channel.

    Products with few columns (gates and small heads) and those that are constant stay float32.

    Args:
        proto: ModelProto.

    Raises:
        ValueError: If onnxruntime is not installed.
    """
    from espnet_layerskip.export.session import onnxruntime_module

    onnxruntime_module()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    constants = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    kept = [
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm")
        and (node.input[1] not in constants or not _is_large(constants[node.input[1]]))
    ]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(proto.SerializeToString())
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
        )
        return onnx_module().load(str(after))


def _is_large(dims: Any) -> bool:
    return len(dims) == 2 and dims[1] >= 64
