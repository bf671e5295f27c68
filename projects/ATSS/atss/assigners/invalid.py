"""Objects that cannot match: counted, and told about once."""

import logging

import torch

logger = logging.getLogger("atss.assigners")


class InvalidObjects:
    """Counts objects without area or with coordinates that are not finite, and warns of the first that come."""

    def __init__(self):
        self.warned = False
        self._on_device = self._on_host = None

    def report_now(self, valid):
        """Warn if an object is not valid.

        Args:
            valid: (M,) bool.
        """
        if not self.warned and not valid.all():
            self._warn(int((~valid).sum()))

    def on_device(self, device):
        """(1,) int32 on `device`, for kernels to add to."""
        if self._on_device is None or self._on_device.device != device:
            self._on_device = torch.zeros(1, dtype=torch.int32, device=device)
            self._on_host = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
        return self._on_device

    def report_later(self):
        """Warn of what kernels have counted so far, without waiting for the device: it may come a call late."""
        if not self.warned:
            self._on_host.copy_(self._on_device, non_blocking=True)
            if self._on_host.item():
                self._warn(self._on_host.item())

    def _warn(self, number):
        self.warned = True
        logger.warning(
            "%d object(s) without area or with coordinates that are not finite match nothing. This is said once.",
            number,
        )
