"""ONNX files give what PyTorch gives, for batches and pictures of sizes that the exporter has not seen."""

import onnx
import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from atss.export import ExportedATSS, capture, compare, suppress, suppress_op
from atss.export.onnx_file import OPSET, load_onnx, save_onnx
from atss.export.torch_file import quiet
from atss.export.verification import side_by_side

METADATA = {"class_names": ["cat", "dog", "Bär"], "input_format": "BGR", "suppressed": True, "nms_threshold": 0.6}


@pytest.fixture(scope="module")
def detector(make_detector):
    return make_detector(selector={"max_detections": 200})


@pytest.fixture(scope="module")
def path(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    save_onnx(capture(ExportedATSS(detector, suppress_op)), path, METADATA)
    return path


def test_it_finds_what_pytorch_finds(detector, path, pictures):
    model = load_onnx(path)

    comparison = compare(detector, model, [pictures[:1], pictures[1:], [pictures[0][:, :17, :16]]], suppressed=True)

    assert not comparison.disagreements and not comparison.num_undecided
    assert comparison.num_pictures == 5 and comparison.num_boxes > 60
    assert comparison.box_difference < 1e-3 and comparison.score_difference < 1e-5


def test_what_lies_beside_a_picture_does_not_count(path, pictures):
    model, (batch, sizes) = load_onnx(path), side_by_side(pictures[:2])
    wider = torch.full((2, 3, 120, 170), 200, dtype=torch.uint8)
    for place, picture in zip(wider, pictures, strict=False):
        place[:, : picture.shape[1], : picture.shape[2]] = picture

    for expected, found in zip(model(batch, sizes), model(wider, sizes), strict=True):
        torch.testing.assert_close(found, expected)


def test_places_without_a_box(path, pictures):
    boxes, scores, classes = load_onnx(path)(*side_by_side(pictures))

    nothing = scores == 0
    assert nothing.any(1).all() and not nothing.all(1).any()
    assert (boxes[nothing] == 0).all() and (classes[nothing] == -1).all() and (classes[~nothing] >= 0).all()


def test_inputs_outputs_and_metadata(path):
    model = onnx.load(path)

    sides = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
             for v in [*model.graph.input, *model.graph.output]}  # fmt: skip
    assert sides == {
        "pictures": ["batch", 3, "height", "width"],
        "sizes": ["batch", 2],
        "boxes": ["batch", 200, 4],
        "scores": ["batch", 200],
        "classes": ["batch", 200],
    }
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    assert types["pictures"] == onnx.TensorProto.UINT8
    assert types["sizes"] == types["classes"] == onnx.TensorProto.INT64
    assert types["boxes"] == types["scores"] == onnx.TensorProto.FLOAT
    assert {p.key: p.value for p in model.metadata_props} == {
        "class_names": '["cat", "dog", "B\\u00e4r"]', "input_format": "BGR", "suppressed": "true", "nms_threshold": "0.6"
    }  # fmt: skip
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_the_file_holds_no_paths_of_the_machine_that_made_it(path):
    assert b"site-packages" not in path.read_bytes() and b".py" not in path.read_bytes()


def exported(module, arguments, dynamic_shapes, path):
    """A small module as a function that onnxruntime runs."""
    import onnxruntime

    from atss.export import onnx_file

    with quiet():
        program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes)
        torch.onnx.export(
            program, opset_version=OPSET, custom_translation_table=onnx_file.TRANSLATIONS, verbose=False
        ).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *values: torch.from_numpy(
        session.run(None, dict(zip(names, (v.numpy() for v in values), strict=True)))[0]
    )


class Suppression(nn.Module):
    def forward(self, boxes, scores, classes):
        return suppress_op(boxes, scores, classes, 0.5, 4, 5)


def test_suppression_is_that_of_pytorch(tmp_path):
    def inputs(num_pictures, num_boxes, seed=0):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(num_pictures, num_boxes, 2, generator=generator) * 50
        sides = 20 + torch.rand(num_pictures, num_boxes, 2, generator=generator) * 60
        scores = torch.rand(num_pictures, num_boxes, generator=generator)
        scores[:, ::5] = 0
        classes = torch.randint(0, 4, (num_pictures, num_boxes), generator=generator)
        return torch.cat([corners, corners + sides], -1), scores, classes

    batch, number = torch.export.Dim("batch", min=1), torch.export.Dim("number", min=1)
    shapes = [{0: batch, 1: number}] * 3
    run = exported(Suppression(), inputs(2, 30), shapes, tmp_path / "nms.onnx")

    for num_pictures, num_boxes in ((1, 40), (3, 25), (2, 3)):
        boxes, scores, classes = inputs(num_pictures, num_boxes, seed=num_boxes)
        expected = suppress(boxes, scores, classes, 0.5, 4, 5)
        kept = run(boxes, scores, classes)
        for picture in range(num_pictures):
            for label in range(4):  # the five best of a class at least
                of_class = expected[picture] & (classes[picture] == label)
                best = of_class.nonzero().squeeze(1)[scores[picture][of_class].argsort(descending=True)][:5]
                assert kept[picture][best].all()
        assert not (kept & ~expected).any()
    assert not run(boxes, torch.zeros_like(scores), classes).any()


class Deformable(nn.Module):
    def __init__(self, modulated):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 2, 3, 3)), nn.Parameter(torch.randn(6))
        self.modulated = modulated

    def forward(self, x, offset, mask):
        mask = mask if self.modulated else None
        return deform_conv2d(x, offset, self.weight, self.bias, stride=2, padding=(2, 1), dilation=(2, 1), mask=mask)


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_convolutions_are_those_of_torchvision(tmp_path, modulated):
    """Two groups of channels, two of offsets, and all numbers that height and width might exchange different."""
    torch.manual_seed(0)
    module = Deformable(modulated)
    arguments = torch.randn(2, 4, 9, 11), torch.randn(2, 36, 5, 6), torch.rand(2, 18, 5, 6)

    run = exported(module, arguments, None, tmp_path / "deformable.onnx")

    with torch.no_grad():
        expected = module(*arguments)
    torch.testing.assert_close(run(*arguments), expected, atol=1e-4, rtol=1e-4)
