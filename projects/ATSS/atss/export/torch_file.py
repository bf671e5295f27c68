"""A detector as a program of `torch.export`, and as a .pt2 file."""

import contextlib
import json
import logging
import warnings

import torch

INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "classes")
BATCH, HEIGHT, WIDTH = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
DYNAMIC_SHAPES = ({0: BATCH, 2: HEIGHT, 3: WIDTH}, {0: BATCH})


def capture(module):
    """An `ExportedATSS` as a `torch.export.ExportedProgram` for any number of images of any size."""
    # The values are arbitrary.
    images, sizes = torch.zeros(2, 3, 96, 160, dtype=torch.uint8), torch.tensor([[96, 150], [90, 160]])
    with torch.no_grad(), quiet():
        program = torch.export.export(module, (images, sizes), dynamic_shapes=DYNAMIC_SHAPES)
    # Stack traces contain paths of this machine.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def save_torch(program, path, metadata):
    """Write a program to a .pt2 file; `metadata` goes into it as metadata.json."""
    with quiet():
        torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata)})


def load_torch(path):
    """The model of a .pt2 file: a function of images (N, 3, H, W) and sizes (N, 2), see `ExportedATSS.forward`."""
    with quiet():
        module = torch.export.load(path).module()
    return torch.no_grad()(module)


@contextlib.contextmanager
def quiet():
    """Silence the warnings and logs of exporters."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
