"""Our own few error types. `str(error)` is one sentence: what was given, what is allowed, what to do."""

from __future__ import annotations


class FamError(Exception):
    """Base of every error that a user can answer."""


class ConfigError(FamError, ValueError):
    """A setting is out of range, of the wrong type or unknown."""


class UsageError(FamError, ValueError):
    """The command or the request cannot be carried out as it was given (exit code 2)."""


class BusyError(UsageError):
    """Another job is running; the same request may be carried out when that has ended."""


class PictureError(FamError):
    """One input picture cannot be read or used; the rest of a folder goes on."""


class OutputError(FamError):
    """The output place cannot be written (full, read-only, inside the input); the job stops cleanly."""


class LoadError(UsageError):
    """The renderer or its model cannot be made ready: no picture can be made, and the job ends once."""


class UnsupportedModelError(FamError):
    """The model's architecture or file kind is not one that FAM can steer."""


class UnknownSitesError(ConfigError):
    """Sites were named that the model does not have."""


class UnsupportedSamplerError(FamError, ValueError):
    """The sampler is unknown, or Frequency Modulation cannot act on its state exactly."""


class UnsupportedScheduleError(UnsupportedSamplerError):
    """The schedule is unknown; the sampler is not."""


class NonFiniteLatentError(FamError):
    """The latent became NaN or infinite; nothing is saved."""


class OutOfMemoryError(FamError):
    """The device ran out of memory; the job may retry one step down the degrade chain."""


OUT_OF_MEMORY = (
    "out of memory",  # CUDA, and MPS's "backend out of memory"
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "invalid buffer size",  # MPS
    "not enough gpu video memory",  # DirectML
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # its handle and workspace found no room
    "cudnn_status_alloc_failed",
    "cudnn_status_not_initialized",
    "unable to find an engine to execute this computation",  # cuDNN, no workspace fits
    "unable to find a valid cudnn algorithm",
    "cufft_alloc_failed",
    "cufft_internal_error",
    "cudnn_status_internal_error_host_allocation_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error`, of any library, says that a device or the machine ran out of memory."""
    if isinstance(error, MemoryError | OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


class AlreadyGuidedError(FamError):
    """A second guided pass was entered on a model that is being guided already."""


class RenderError(FamError):
    """The renderer failed on one picture for a reason of its own."""


class Skipped(FamError):  # noqa: N818  # a signal, not a fault
    """The user left out the picture under way, or its output has come to exist; the rest goes on, and a later run plans
    it anew."""


class Cancelled(FamError):  # noqa: N818  # a signal, not a fault
    """The user stopped the work; nothing half-written stays."""
