import pytest
import torch

SIZES = [(48, 70), (33, 100), (64, 64), (90, 41)]


@pytest.fixture(scope="session")
def images():
    """Four images of different sizes, (3, H, W) uint8."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
