"""Where to compute."""

import torch


def there(device: torch.device) -> bool:
    """Whether this machine has the device."""
    match device.type:
        case "cuda":
            return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
        case "mps":
            return torch.backends.mps.is_available()
        case kind:
            return kind == "cpu"


def best() -> torch.device:
    """A GPU where there is one, else the processor."""
    return next(device for device in map(torch.device, ("cuda", "mps", "cpu")) if there(device))
