"""An ONNX file with convolutions in 8-bit integers, by ONNX Runtime's static quantization."""

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from .torch_file import INPUTS, quiet

# The head's last layers stay in float32: 256 values are few for scores, and these layers cost little.
PREDICTORS = ("class_logits", "box_deltas", "centerness")


def save_int8(path, int8_path, images):
    """Quantize the convolutions of an ONNX file: weights per channel, activations per tensor.

    Weights get 7 bits of 8, so that sums do not overflow on CPUs without VNNI instructions. The range of an activation
    goes from the mean of its minima in the calibration images to that of its maxima.

    Args:
        path: file that `save_onnx` has written.
        int8_path: path of the file to write; its metadata_props, inputs and outputs are those of `path`.
        images: iterable of calibration images, (3, H, W) uint8 tensors as the model takes them, of any sizes.
    """
    model = onnx.load(path)
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    with quiet():
        quantize_static(
            path,
            int8_path,
            Calibration(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,  # faster on x86 than QInt8
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},  # or the most unusual image would decide
            nodes_to_exclude=[name for name, weight in weights.items() if any(part in weight for part in PREDICTORS)],
        )
    quantized = onnx.load(int8_path)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    onnx.save(quantized, int8_path)


class Calibration(CalibrationDataReader):
    """Images one by one as the inputs of the model."""

    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        if image is None:
            return None
        return dict(zip(INPUTS, (image[None].numpy(), np.array([image.shape[1:]])), strict=True))
