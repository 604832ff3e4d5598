"""Whether a graph's nodes are known operators, each after those that it reads from.

onnx's own checker says so too, but only of a model whose outputs have shapes, and these are inferred from the nodes:
without this look a misspelt operator would be reported as a shape that is missing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from onnx import defs

from converter.common.conversion import ConversionRefused
from converter.toolchain import models

if TYPE_CHECKING:
    import onnx


def check(model: onnx.ModelProto) -> None:
    """Looks at every node in its order.

    Raises:
        ConversionRefused: `opset_unsupported`: it is newer than any that onnx knows. `model_invalid`: an operator is
            not in the model's opset, a node reads what nothing before it makes, an output of the graph is made by
            nothing, or two outputs have one name.
    """
    opset = models.opset(model)
    if opset > defs.onnx_opset_version():
        raise ConversionRefused(
            "opset_unsupported", f"the model uses opset {opset}, the newest known one is {defs.onnx_opset_version()}"
        )
    made = {"", *(value.name for value in model.graph.input), *(tensor.name for tensor in model.graph.initializer)}
    for node in model.graph.node:
        if not _known(node.op_type, opset):
            raise ConversionRefused(
                "model_invalid",
                f"the operator {node.op_type} is not in opset {opset} of ONNX, as this service knows it",
                node=node.name,
                op=node.op_type,
            )
        for name in node.input:
            if name not in made:
                raise ConversionRefused(
                    "model_invalid",
                    f"a node reads {name!r}, which nothing before it makes: it is missing, or the graph has a cycle",
                    node=node.name,
                    op=node.op_type,
                )
        made.update(node.output)
    for output in model.graph.output:
        if output.name not in made:
            raise ConversionRefused("model_invalid", f"nothing makes the model's output {output.name!r}")
    given = Counter(output.name for output in model.graph.output)
    if twice := next((name for name, times in given.items() if times > 1), None):
        raise ConversionRefused("model_invalid", f"the model gives out {twice!r} twice")


def _known(op: str, opset: int) -> bool:
    try:
        defs.get_schema(op, max_inclusive_version=opset, domain="")
    except defs.SchemaError:
        return False
    return True
