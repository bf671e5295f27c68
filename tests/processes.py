"""What tests run in processes of their own; these import it by name."""

import torch

from atss.modeling.losses import normalizers


def normalizers_of_process(rank, world_size, store, positives, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    results[rank] = normalizers(torch.tensor([1.0, 0.5, 1.0]) * positives[rank]).tolist()
    torch.distributed.destroy_process_group()
