"""Objects that cannot match: counted, and told about once."""

import logging

import torch

logger = logging.getLogger(__name__)


class InvalidObjects:
    """Counts objects without area or with coordinates that are not finite, and warns of the first that come."""

    def __init__(self):
        self.warned = False
        # By device, and never replaced: CUDA graphs go on writing there.
        self._counts = {}

    def report_now(self, valid):
        """Warn if an object is not valid.

        Args:
            valid: (M,) bool.
        """
        if not self.warned and not valid.all():
            self._warn(int((~valid).sum()))

    def on_device(self, device):
        """(1,) int32 on `device`, for kernels to add to."""
        if device not in self._counts:
            on_host = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
            self._counts[device] = torch.zeros_like(on_host, device=device), on_host
        return self._counts[device][0]

    def report_later(self, device):
        """Warn of what kernels have counted so far, without waiting for the device: it may come a call late."""
        on_device, on_host = self._counts[device]
        if not self.warned:
            on_host.copy_(on_device, non_blocking=True)
            if on_host.item():
                self._warn(on_host.item())

    def _warn(self, number):
        self.warned = True
        logger.warning(
            "%d object(s) without area or with coordinates that are not finite match nothing. This is said once.",
            number,
        )
