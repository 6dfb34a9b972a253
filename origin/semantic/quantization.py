"""Eight-bit matrix products for an exported encoder, so that a text's result is its own.

What ONNX Runtime's `quantize_dynamic` makes has one scale for all activations of a run: the texts
of a batch change each other's vectors (measured: cosines by up to 0.06). Here each row of
activations, that is each token, has a range of its own, and each column of weights a scale:

    x = low + step * q         q: uint8, step = (high - low) / 255, of each row
    w = scale * u              u: int8 within 63, of each column
    x @ w = (step * (q @ u) + low * sum(u)) * scale

Weights keep to 63: on x86 without VNNI, two products are added in 16 signed bits, which
2 * 255 * 63 fits and 2 * 255 * 127 does not. So every machine computes the same integers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_WEIGHT_LIMIT: Final = 63
_TINY: Final = 1e-12
"""A row or column of equal numbers has no range to divide by."""
_CONSTANTS: Final[dict[str, NDArray[Any]]] = {
    "q8_last_axis": np.array([-1], np.int64),
    "q8_levels": np.array(255, np.float32),
    "q8_one": np.array(1, np.float32),
    "q8_zero": np.array(0, np.uint8),
    "q8_tiny": np.array(_TINY, np.float32),
}


def quantize(file: Path) -> None:
    """Replace each product with a constant matrix, in place. The rest stays float32."""
    model = onnx.load(file)
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    constants = dict(_CONSTANTS)
    rows: set[str] = set()
    for node in graph.node:
        matrix = initializers.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is None or len(matrix.dims) != 2:
            nodes.append(node)
            continue
        activations, result = node.input[0], node.output[0]
        if activations not in rows:  # queries, keys and values share theirs
            rows.add(activations)
            nodes += _quantize_rows(activations)
        weights, scales = _quantize_columns(numpy_helper.to_array(matrix))
        constants[f"{result}/weights"] = weights
        constants[f"{result}/scales"] = scales
        constants[f"{result}/sums"] = weights.sum(axis=0, dtype=np.float32)
        nodes += _product(activations, result)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    made = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept + made)
    onnx.save(model, file)


def _quantize_columns(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scales = np.maximum(np.abs(matrix).max(axis=0), _TINY) / _WEIGHT_LIMIT
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def _quantize_rows(x: str) -> list[onnx.NodeProto]:
    """Nodes that make `x/q`, `x/low` and `x/step`, each row's own."""
    make = helper.make_node
    return [
        make("ReduceMax", [x, "q8_last_axis"], [f"{x}/high"], keepdims=1),
        make("ReduceMin", [x, "q8_last_axis"], [f"{x}/low"], keepdims=1),
        make("Sub", [f"{x}/high", f"{x}/low"], [f"{x}/range"]),
        make("Max", [f"{x}/range", "q8_tiny"], [f"{x}/divisor"]),
        make("Div", ["q8_levels", f"{x}/divisor"], [f"{x}/per_unit"]),
        make("Sub", [x, f"{x}/low"], [f"{x}/shifted"]),
        make("Mul", [f"{x}/shifted", f"{x}/per_unit"], [f"{x}/levels"]),
        # Rounds to even and keeps to 0..255.
        make("QuantizeLinear", [f"{x}/levels", "q8_one", "q8_zero"], [f"{x}/q"]),
        make("Div", [f"{x}/divisor", "q8_levels"], [f"{x}/step"]),
    ]


def _product(x: str, result: str) -> list[onnx.NodeProto]:
    make = helper.make_node
    return [
        make("MatMulInteger", [f"{x}/q", f"{result}/weights"], [f"{result}/integers"]),
        make("Cast", [f"{result}/integers"], [f"{result}/floats"], to=TensorProto.FLOAT),
        make("Mul", [f"{result}/floats", f"{x}/step"], [f"{result}/stepped"]),
        make("Mul", [f"{x}/low", f"{result}/sums"], [f"{result}/lifted"]),
        make("Add", [f"{result}/stepped", f"{result}/lifted"], [f"{result}/unscaled"]),
        make("Mul", [f"{result}/unscaled", f"{result}/scales"], [result]),
    ]
