"""Models that mean harm, or that nobody thought of: name by name the bytes of one file, made when asked for."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.devstack.demo import DATA

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node = helper.make_node
Dims = list[int | str] | None
DIGITS = (DATA / "digits_cnn.onnx").read_bytes()


def model(
    *nodes: onnx.NodeProto,
    shape: Dims = (1, 3, 8, 8),  # type: ignore[assignment]  # a default that nobody can change
    dtype: int = FLOAT,
    out_dtype: int = FLOAT,
    opset: int = 17,
    ir: int = 8,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    """A model from x to y; the output's shape is left open."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", out_dtype, None)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def added(*nodes: onnx.NodeProto, **weights: np.ndarray) -> bytes:
    """A model that adds what `nodes` make as "big" to its input."""
    return model(*nodes, node("Add", ["x", "big"], ["y"]), shape=[1], **weights).SerializeToString()


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def conv(shape: tuple[int, ...] = (4, 3, 3, 3), **attributes: object) -> onnx.ModelProto:
    return model(node("Conv", ["x", "w"], ["y"], name="conv", **attributes), w=np.ones(shape, np.float32))


def stored_outside(location: str, **more: str) -> bytes:
    made = conv()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return made.SerializeToString()


def with_dims(*dims: int, raw: bytes | None = None) -> bytes:
    made = conv()
    tensor = made.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    if raw is not None:
        tensor.raw_data = raw
    return made.SerializeToString()


def with_weights(value: float) -> bytes:
    made = conv()
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3, 3, 3), value, np.float32), "w"))
    return made.SerializeToString()


def chain(op: str, length: int) -> bytes:
    names = ["x", *(f"t{i}" for i in range(length - 1)), "y"]
    return model(*(node(op, [a], [b]) for a, b in pairwise(names))).SerializeToString()


def doublings(count: int) -> bytes:
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    return model(*(node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)), shape=[2]).SerializeToString()


def constant_doublings(count: int) -> bytes:
    names = ["seed", *(f"t{i}" for i in range(count - 1)), "big"]
    return added(*(node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)), seed=np.ones(2, np.float32))


def function_bomb() -> bytes:
    """Each function calls the one before ten times."""
    made = model(node("f9", ["x"], ["y"], domain="local"))
    made.opset_import.append(helper.make_opsetid("local", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for level in range(10):
        inner = [
            node("Relu" if level == 0 else f"f{level - 1}", [f"a{i}"], [f"a{i + 1}"], domain="local" if level else "")
            for i in range(10)
        ]
        made.functions.append(helper.make_function("local", f"f{level}", ["a0"], ["a10"], inner, imports))
    return made.SerializeToString()


def body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s2", FLOAT, None),
        ],
    )


def endless_loop() -> bytes:
    loop = node("Loop", ["most", "yes", "x"], ["y"], body=body(node("Add", ["s", "s"], ["s2"])))
    return model(loop, most=ints(2**62)[0], yes=np.array(True)).SerializeToString()  # noqa: FBT003 - a tensor's value


def nested_ifs(depth: int) -> bytes:
    out = [helper.make_tensor_value_info("y", FLOAT, None)]
    inner = helper.make_graph([node("Identity", ["x"], ["y"])], "leaf", [], out)
    for _ in range(depth):
        branch = node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([branch], "g", [], out)
        if inner.ByteSize() > 200_000:
            break
    return model(*inner.node, yes=np.array(True)).SerializeToString()  # noqa: FBT003 - a tensor's value


def nested_messages(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = b"\x32" + _varint(len(content)) + content  # AttributeProto.g, GraphProto.node, in turn
    return b"\x08\x08\x3a" + _varint(len(content)) + content + b"\x42\x02\x10\x11"


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes(written + bytes([value]))


def archive_of(content: bytes) -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return written.getvalue()


def renamed(name: str) -> bytes:
    made = conv()
    made.graph.node[0].name = name
    made.graph.node[0].input[0] = made.graph.input[0].name = name
    return made.SerializeToString()


def edited(change: Callable[[onnx.ModelProto], object]) -> bytes:
    made = conv()
    change(made)
    return made.SerializeToString()


def big_constant(dims: np.ndarray) -> bytes:
    value = helper.make_tensor("v", FLOAT, [1], [1.0])
    return added(node("ConstantOfShape", ["dims"], ["big"], value=value), dims=dims)


def hours_of_products() -> bytes:
    """Little to keep, and more to compute than anybody waits for."""
    value = helper.make_tensor("v", FLOAT, [1], [0.0])
    names = [f"t{i}" for i in range(10_000)]
    return added(
        node("ConstantOfShape", ["dims"], ["t0"], value=value),
        *(node("MatMul", [a, a], [b]) for a, b in pairwise(names)),
        node("ReduceSum", [names[-1]], ["big"], keepdims=0),
        dims=ints(3_000, 3_000),
    )


WRONG_FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: np.random.default_rng(0).bytes(65_536),
    "a text": lambda: b"import os; os.system('id')\n" * 50,
    "a pickle": lambda: pickle.dumps({"__reduce__": "os.system"}),
    "an archive": lambda: archive_of(pickle.dumps([1])),
    "a gzip bomb": lambda: gzip.compress(bytes(20 << 20)),
    "a picture": lambda: b"\x89PNG\r\n\x1a\n" + DIGITS,
    "cut in half": lambda: DIGITS[: len(DIGITS) // 2],
    "cut by a byte": lambda: DIGITS[:-1],
    "two models in one": lambda: DIGITS + DIGITS,
    "a model with an archive behind": lambda: DIGITS + archive_of(b"x"),
    "a shell script and a model": lambda: b"#!/bin/sh\nid\n" + DIGITS,
    "a flood of fields": lambda: b"\x08\x08" * 2_000_000,
    "nested a thousand deep": lambda: nested_messages(1000),
}

GRAPHS: dict[str, Callable[[], bytes]] = {
    "a cycle": lambda: model(
        node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])
    ).SerializeToString(),
    "a node that reads itself": lambda: model(node("Add", ["x", "y"], ["y"])).SerializeToString(),
    "an input from nowhere": lambda: model(node("Add", ["x", "nowhere"], ["y"])).SerializeToString(),
    "one name made twice": lambda: model(node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])).SerializeToString(),
    "a node without results": lambda: model(node("Relu", ["x"], []), node("Relu", ["x"], ["y"])).SerializeToString(),
    "an unknown operator": lambda: model(node("Frobnicate", ["x"], ["y"])).SerializeToString(),
    "a foreign domain": lambda: model(node("Evil", ["x"], ["y"], domain="evil.example")).SerializeToString(),
    "a domain of the runtime": lambda: model(
        node("FusedConv", ["x"], ["y"], domain="com.microsoft")
    ).SerializeToString(),
    "a chain of 300": lambda: chain("Relu", 300),
    "no output": lambda: edited(lambda made: made.graph.ClearField("output")),
    "no graph": lambda: edited(lambda made: made.ClearField("graph")),
    "an opset of the future": lambda: model(node("Relu", ["x"], ["y"]), opset=999).SerializeToString(),
    "an opset of the past": lambda: model(node("Relu", ["x"], ["y"]), opset=1).SerializeToString(),
    "an IR of the future": lambda: model(node("Relu", ["x"], ["y"]), ir=99).SerializeToString(),
    "training": lambda: edited(lambda made: made.training_info.add()),
    "quantised already": lambda: model(
        node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"]), s=np.float32(1)
    ).SerializeToString(),
    "a function bomb": function_bomb,
    "an endless loop": endless_loop,
    "nested branches": lambda: nested_ifs(12),
    "a sequence": lambda: model(node("SequenceConstruct", ["x"], ["y"])).SerializeToString(),
}

TENSORS: dict[str, Callable[[], bytes]] = {
    "weights in a system file": lambda: stored_outside("/etc/passwd"),
    "weights up the tree": lambda: stored_outside("../../../../etc/passwd"),
    "weights behind a link": lambda: stored_outside("link-to-etc/passwd"),
    "weights at a huge offset": lambda: stored_outside("w.bin", offset=str(2**62), length=str(2**62)),
    "weights in a pipe": lambda: stored_outside("/dev/stdin"),
    "a negative dimension": lambda: with_dims(-1, 3, 3, 3),
    "dimensions that overflow": lambda: with_dims(2**40, 2**40),
    "dimensions that overflow to a match": lambda: with_dims(2**32, 2**32, raw=b""),
    "fewer bytes than dimensions": lambda: with_dims(400, 3, 3, 3),
    "no bytes at all": lambda: with_dims(1 << 30, raw=b""),
    "a rank of 2000": lambda: with_dims(*[1] * 2000),
    "not a number": lambda: with_weights(float("nan")),
    "infinite weights": lambda: with_weights(float("inf")),
    "the largest weights": lambda: with_weights(3e38),
    "integers for weights": lambda: model(
        node("Conv", ["x", "w"], ["y"]), w=np.ones((4, 3, 3, 3), np.int64)
    ).SerializeToString(),
    "texts for numbers": lambda: model(node("Relu", ["x"], ["y"]), dtype=STRING, out_dtype=STRING).SerializeToString(),
    "an unknown type": lambda: edited(lambda made: setattr(made.graph.initializer[0], "data_type", 77)),
    "a sparse tensor": lambda: edited(lambda made: made.graph.sparse_initializer.add()),
    "a name of 10 MB": lambda: renamed("n" * 10_000_000),
    "a name with a path, a page and a bell": lambda: renamed("../../etc/<script>alert(1)</script>\x1b[2J\x07\n"),
    "an input of 10 to the 10": lambda: model(
        node("Relu", ["x"], ["y"]), shape=[1, 1, 100_000, 100_000]
    ).SerializeToString(),
}

BOMBS: dict[str, Callable[[], bytes]] = {
    "an input of 8 GB": lambda: model(node("Relu", ["x"], ["y"]), shape=[1, 1, 44_000, 44_000]).SerializeToString(),
    "a range of 2 to the 40": lambda: added(
        node("Range", ["zero", "end", "one"], ["ids"]),
        node("Cast", ["ids"], ["big"], to=FLOAT),
        zero=ints(0)[0],
        end=ints(2**40)[0],
        one=ints(1)[0],
    ),
    "40 doublings": lambda: doublings(40),
    "40 doublings of a constant": lambda: constant_doublings(40),
    "a constant of 4 TB": lambda: big_constant(ints(2**20, 2**20)),
    "a constant of a negative size": lambda: big_constant(ints(-1)),
    "a constant of many axes": lambda: big_constant(ints(*[64] * 60)),
    "an expansion": lambda: added(node("Expand", ["s", "d"], ["big"]), s=np.ones(1, np.float32), d=ints(2**36)),
    "a tiling": lambda: added(node("Tile", ["s", "d"], ["big"]), s=np.ones(1, np.float32), d=ints(2**36)),
    "a padding": lambda: added(node("Pad", ["s", "d"], ["big"]), s=np.ones(1, np.float32), d=ints(2**35, 2**35)),
    "a padding of less than nothing": lambda: added(
        node("Pad", ["s", "d"], ["big"]), s=np.ones(1, np.float32), d=ints(-(2**62), -(2**62))
    ),
    "a magnification": lambda: model(
        node("Resize", ["x", "", "scale"], ["y"]), scale=np.array([1, 1, 1e5, 1e5], np.float32)
    ).SerializeToString(),
    "a one-hot of 2 to the 36": lambda: added(
        node("OneHot", ["i", "depth", "v"], ["big"]), i=ints(1), depth=ints(2**36)[0], v=np.array([0, 1], np.float32)
    ),
    "an eye": lambda: added(
        node("ConstantOfShape", ["d"], ["z"]), node("EyeLike", ["z"], ["big"]), d=ints(2**18, 2**18)
    ),
    "hours of products": hours_of_products,
    "a window of 2 to the 40": lambda: added(node("HannWindow", ["n"], ["big"]), n=ints(2**40)[0]),
    "convolution padded beyond measure": lambda: conv(pads=[2**30] * 4).SerializeToString(),
    "convolution dilated beyond measure": lambda: conv(dilations=[2**40, 2**40]).SerializeToString(),
    "convolution with no stride": lambda: conv(strides=[0, 0]).SerializeToString(),
    "convolution in no groups": lambda: conv(group=0).SerializeToString(),
    "convolution in negative groups": lambda: conv(group=-(2**31)).SerializeToString(),
    "a kernel of another size": lambda: conv(kernel_shape=[2**31, 7]).SerializeToString(),
    "pooling with no stride": lambda: model(
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])
    ).SerializeToString(),
    "pooling by nothing": lambda: model(node("AveragePool", ["x"], ["y"], kernel_shape=[0, 0])).SerializeToString(),
    "a split into 5000": lambda: model(
        node("Split", ["x"], [f"s{i}" for i in range(5000)], axis=0), node("Relu", ["s0"], ["y"]), shape=[5000]
    ).SerializeToString(),
    "a shape that divides by zero": lambda: model(
        node("Reshape", ["x", "d"], ["y"]), d=ints(0, -1, 0, -1)
    ).SerializeToString(),
    "an index far out": lambda: model(node("Gather", ["x", "i"], ["y"]), i=ints(2**60)).SerializeToString(),
    "an axis far out": lambda: model(node("Softmax", ["x"], ["y"], axis=2**60)).SerializeToString(),
    "a division of integers by zero": lambda: added(
        node("Div", ["a", "b"], ["c"]), node("Cast", ["c"], ["big"], to=FLOAT), a=ints(1), b=ints(0)
    ),
    "the least integer over minus one": lambda: added(
        node("Div", ["a", "b"], ["c"]), node("Cast", ["c"], ["big"], to=FLOAT), a=ints(-(2**63)), b=ints(-1)
    ),
    "an equation without end": lambda: model(
        node("Einsum", ["x"], ["y"], equation="abcd" + "," * 5000 + "->")
    ).SerializeToString(),
    "results that nobody can repeat": lambda: model(
        node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])
    ).SerializeToString(),
    "a logarithm of what is negative": lambda: model(
        node("Neg", ["x"], ["n"]),
        node("Log", ["n"], ["l"]),
        node("Conv", ["l", "w"], ["y"]),
        w=np.ones((2, 3, 3, 3), np.float32),
    ).SerializeToString(),
}

MODELS = {**WRONG_FILES, **GRAPHS, **TENSORS, **BOMBS}
