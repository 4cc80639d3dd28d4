"""A network small enough to build many times, with what matters to TensorRT: convolutions, a residual, pooling, resizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from edgesod.recipe import Precision, Recipe

SIZE_HW = (32, 48)
TEXT = """
<ir_version: 8, opset_import: ["":17]>
small (float[1,3,32,48] image) => (float[1,1,32,48] saliency)
{
    [n1] a = Conv <pads=[1,1,1,1]> (image, w1, b)
    [n2] first = Relu (a)
    [n3] pooled = MaxPool <kernel_shape=[2,2], strides=[2,2]> (first)
    [n4] c = Conv <pads=[1,1,1,1]> (pooled, w2, b)
    [n5] second = Relu (c)
    [n6] up = Resize <mode="linear"> (second, , , sizes)
    [n7] sum = Add (up, first)
    [n8] both = Concat <axis=1> (sum, first)
    [n9] d = Conv <pads=[1,1,1,1]> (both, w3, b)
    [n10] third = Relu (d)
    [n11] logits = Conv (third, w4, b4)
    [n12] saliency = Sigmoid (logits)
}
"""
CONVS = ("n1", "n4", "n9", "n11")


def recipe(precision: Precision) -> Recipe:
    return Recipe(model="small", size_hw=SIZE_HW, precision=precision)


def write_small(path: Path, text: str = TEXT) -> Path:
    generator = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 16, 3, 3), "w4": (1, 8, 1, 1), "b": (8,), "b4": (1,)}
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array((generator.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8, 32, 48]), "sizes"))
    onnx.save(model, path)
    return path
