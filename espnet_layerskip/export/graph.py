"""A thin builder of ONNX graphs: constants by value, operators by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The lowest one with LayerNormalization; onnxruntime 1.20, the first for all our Pythons, has it.
OPSET = 17
IR_VERSION = 8

Array = NDArray[Any]


def onnx_module() -> Any:
    """Import the package ``onnx``, which only an export needs.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import onnx
    except ImportError as e:
        raise ValueError(
            "an export needs the package onnx: pip install 'espnet_layerskip[onnx]'"
        ) from e
    return onnx


class Graph:
    """A graph under construction. Values are known by their names, which methods return.

    Attributes:
        constants: Arrays by name; equal arrays are one constant.
    """

    def __init__(self) -> None:
        self.onnx = onnx_module()
        self.constants: dict[str, Array] = {}
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._nodes: list[list[Any]] = [[]]
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def new(self) -> str:
        """Return a name that is not in use."""
        self._count += 1
        return f"v{self._count}"

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """Return a constant: an array, or a number or nested lists made one of ``dtype``."""
        array = np.ascontiguousarray(np.asarray(value, dtype))
        array = array.reshape(np.shape(value))  # ascontiguousarray makes a number a list
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = name = f"c{len(self._names)}"
            self.constants[name] = array
        return self._names[key]

    def ints(self, *values: int) -> str:
        """Return a constant vector of integers."""
        return self.const(values, np.int64)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Return the output of an operator; see `ops`."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Return the outputs of an operator of ONNX.

        Args:
            kind: Its name.
            inputs: Names of values; "" leaves an optional one out.
            outputs: Their number.
            attributes: Those of the operator.
        """
        names = [self.new() for _ in range(outputs)]
        node = self.onnx.helper.make_node(kind, list(inputs), names, name=names[0], **attributes)
        self._nodes[-1].append(node)
        return names

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Return the parts of x along an axis."""
        return self.ops("Split", x, self.ints(*sizes), outputs=len(sizes), axis=axis)

    def slice(self, x: str, start: str, stop: str, axis: int, step: int = 1) -> str:
        """Return x[start:stop:step] along an axis; bounds are vectors of one integer."""
        return self.op("Slice", x, start, stop, self.ints(axis), self.ints(step))

    def reshape(self, x: str, *shape: int | str) -> str:
        """Return x in another shape; 0 keeps a length, -1 is what is left, names are computed."""
        if all(isinstance(n, int) for n in shape):
            return self.op("Reshape", x, self.ints(*shape))  # type: ignore[arg-type]
        return self.op("Reshape", x, self.vector(*shape))

    def vector(self, *parts: int | str) -> str:
        """Return integers, constant or vectors of one that are computed, as one vector."""
        known = [p if isinstance(p, str) else self.ints(p) for p in parts]
        return self.op("Concat", *known, axis=0)

    def length(self, x: str, axis: int) -> str:
        """Return the length of x along an axis, a vector of one integer."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def range(self, stop: str) -> str:
        """Return 0 ... stop - 1; ``stop`` is a vector of one integer."""
        zero, one = self.const(0, np.int64), self.const(1, np.int64)
        return self.op("Range", zero, self.op("Squeeze", stop), one)

    def add_input(self, name: str, dtype: Any, shape: Sequence[Any], default: Any = None) -> str:
        """Return a new input of the graph.

        Args:
            name: Its name.
            dtype: Of NumPy.
            shape: Lengths, or names of lengths that vary.
            default: Its value where a caller gives none.
        """
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        if default is not None:
            self.constants[name] = np.asarray(default, dtype)
        return name

    def add_output(self, name: str, value: str, dtype: Any, shape: Sequence[Any]) -> None:
        """Make a value an output of the graph."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        self._nodes[-1].append(self.onnx.helper.make_node("Identity", [value], [name]))

    @contextmanager
    def loop(self, count: str, rank: int) -> Iterator[LoopBody]:
        """Build the body of a loop inside the block; see `LoopBody`.

        Args:
            count: How often it runs, an integer.
            rank: Of the value that each turn gives.
        """
        body = LoopBody(self.new(), self.new())
        self._nodes.append([])
        yield body
        nodes, make = self._nodes.pop(), self.onnx.helper
        going, goes_on, out = self.new(), self.new(), self.new()
        nodes += [
            make.make_node("Identity", [going], [goes_on]),
            make.make_node("Identity", [body.value], [out]),
        ]
        kinds = self.onnx.TensorProto
        inner = make.make_graph(
            nodes,
            body.stacked,
            [
                make.make_tensor_value_info(body.turn, kinds.INT64, []),
                make.make_tensor_value_info(going, kinds.BOOL, []),
            ],
            [
                make.make_tensor_value_info(goes_on, kinds.BOOL, []),
                make.make_tensor_value_info(out, kinds.FLOAT, [None] * rank),
            ],
        )
        inputs = [count, self.const(True, np.bool_)]
        self._nodes[-1].append(make.make_node("Loop", inputs, [body.stacked], body=inner))

    def model(self, metadata: dict[str, str]) -> Any:
        """Return the ModelProto, with the constants in it."""
        make, arrays = self.onnx.helper, self.onnx.numpy_helper
        constants = [arrays.from_array(array, name) for name, array in self.constants.items()]
        graph = make.make_graph(self._nodes[0], "layerskip", self._inputs, self._outputs, constants)
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        model.producer_name = "espnet_layerskip"
        make.set_model_props(model, metadata)
        self.onnx.checker.check_model(model)
        return model


class LoopBody:
    """A loop's ``turn`` (from 0), the ``value`` to set, and its values ``stacked`` afterwards."""

    def __init__(self, turn: str, stacked: str):
        self.turn, self.stacked, self.value = turn, stacked, ""
