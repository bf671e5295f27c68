"""A detector as an ONNX file."""

import json

import onnx
import onnxruntime
import torch
from onnxscript import opset20 as op

from .torch_file import INPUTS, OUTPUTS, quiet

OPSET = 20
DIMENSIONS = {"images": ("batch", 3, "height", "width"), "sizes": ("batch", 2)}
INT64, BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def save_onnx(program, path, metadata):
    """Write a program to an ONNX file.

    Args:
        program: `torch.export.ExportedProgram` of an `ExportedATSS` whose suppression is `suppress_op`, or None.
        path: of the file.
        metadata: dict from str to what json knows, for the file's metadata_props; what is no text goes there as json.
    """
    with quiet():
        exported = torch.onnx.export(
            program,
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    model = exported.model_proto
    tidy(model)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def load_onnx(path):
    """The model of an ONNX file on the CPU: a function of images (N, 3, H, W) and sizes (N, 2) tensors, see
    `ExportedATSS.forward`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Waiting threads would otherwise keep the cores busy that torch computes on in its turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images, sizes):
        values = session.run(OUTPUTS, {"images": images.numpy(), "sizes": sizes.numpy()})
        return tuple(torch.from_numpy(value) for value in values)

    return run


def tidy(model):
    """Give the variable sides of the inputs names, and leave out what only the exporter's authors can read."""
    names = {}
    for value in model.graph.input:
        for dimension, name in zip(value.type.tensor_type.shape.dim, DIMENSIONS[value.name], strict=True):
            if dimension.dim_param:
                names[dimension.dim_param] = name
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names[dimension.dim_param]
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def suppression(boxes, scores, classes, iou_threshold: float, num_classes: int, number: int):
    """`suppress_op` in ONNX, which suppresses by image and class itself."""
    labels = op.Constant(value=onnx.numpy_helper.from_array(torch.arange(num_classes)[:, None].numpy()))
    one = op.Constant(value_ints=[1])
    of_class = op.Equal(op.Unsqueeze(classes, one), labels)  # (N, C, B)
    by_class = op.Where(of_class, op.Unsqueeze(scores, one), op.Constant(value_float=0.0))
    selected = op.NonMaxSuppression(
        boxes,
        by_class,
        op.Constant(value_ints=[number]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)  # image and box
    nowhere = op.Less(scores, op.Constant(value_float=0.0))
    there = op.Expand(op.Cast(op.Constant(value_int=1), to=BOOL), op.Shape(places, start=0, end=1))
    return op.ScatterND(nowhere, places, there)


def deformable_convolution(
    x,
    weight,
    offset,
    mask,
    bias,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
):
    """torchvision's deformable convolution in ONNX."""
    return op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


TRANSLATIONS = {
    torch.ops.atss.suppress.default: suppression,
    torch.ops.torchvision.deform_conv2d.default: deformable_convolution,
}
