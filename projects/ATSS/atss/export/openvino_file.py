"""An ONNX file in OpenVINO."""

import openvino
import torch

from .torch_file import INPUTS, OUTPUTS

# On CPUs with bfloat16 OpenVINO computes in it, unless it is told otherwise.
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


def load_openvino(path):
    """The model of an ONNX file in OpenVINO on the CPU, in float32: a function of tensors, as that of `load_onnx`."""
    options = {**FLOAT32, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.Core().compile_model(path, "CPU", options)

    def run(images, sizes):
        values = model(dict(zip(INPUTS, (images.numpy(), sizes.numpy()), strict=True)))
        return tuple(torch.from_numpy(values[name].copy()) for name in OUTPUTS)

    return run
