"""A detector as an ONNX file."""

import json

import onnx
import onnxruntime
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript import opset20 as op

from .torch_file import DYNAMIC_SHAPES, INPUTS, OUTPUTS, quiet

OPSET = 20


def save_onnx(program, path, metadata):
    """Write a program to an ONNX file.

    Args:
        program: `torch.export.ExportedProgram` of an `ExportedATSS` whose suppression is `suppress_op`, or None.
        path: path of the file.
        metadata: dict for the file's metadata_props; values that are not str become JSON there.
    """
    with quiet():
        exported = torch.onnx.export(
            program,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=DYNAMIC_SHAPES,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
        ClearMetadataAndDocStringPass()(exported.model)  # they include paths of this machine
    for name, value in metadata.items():
        exported.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    exported.save(path)
    onnx.checker.check_model(path, full_check=True)


def load_onnx(path):
    """The model of an ONNX file on the CPU: a function of tensors, see `ExportedATSS.forward`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait actively would take the cores from torch, which runs in turns with it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images, sizes):
        values = session.run(OUTPUTS, {"images": images.numpy(), "sizes": sizes.numpy()})
        return tuple(torch.from_numpy(value) for value in values)

    return run


def suppression(boxes, scores, classes, iou_threshold: float, num_classes: int, number: int):
    """`suppress_op` in ONNX, whose operator works per image and class itself."""
    labels = op.Constant(value=onnx.numpy_helper.from_array(torch.arange(num_classes)[:, None].numpy()))
    one, zero = op.Constant(value_ints=[1]), op.Constant(value_floats=[0.0])
    of_class = op.Equal(op.Unsqueeze(classes, one), labels)  # (N, C, B)
    by_class = op.Where(of_class, op.Unsqueeze(scores, one), zero)
    most, threshold = op.Constant(value_ints=[number]), op.Constant(value_floats=[iou_threshold])
    selected = op.NonMaxSuppression(boxes, by_class, most, threshold, zero)
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)  # image and box
    # TensorRT scatters numbers, not truth values.
    kept = op.Expand(one, op.Shape(places, start=0, end=1))
    nothing = op.Cast(op.Less(scores, zero), to=onnx.TensorProto.INT64)
    return op.Cast(op.ScatterND(nothing, places, kept), to=onnx.TensorProto.BOOL)


def deformable_convolution(
    x, weight, offset, mask, bias, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
    dilation_h: int, dilation_w: int, groups: int, offset_groups: int, use_mask: bool,
):  # fmt: skip
    """torchvision's deformable convolution in ONNX, which older versions of onnxscript do not translate."""
    sides = {"strides": [stride_h, stride_w], "pads": [pad_h, pad_w] * 2, "dilations": [dilation_h, dilation_w]}
    mask = mask if use_mask else None
    return op.DeformConv(x, weight, offset, bias, mask, group=groups, offset_group=offset_groups, **sides)


TRANSLATIONS = {
    torch.ops.atss.suppress.default: suppression,
    torch.ops.torchvision.deform_conv2d.default: deformable_convolution,
}
