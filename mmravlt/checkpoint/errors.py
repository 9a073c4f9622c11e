"""What can be wrong with a checkpoint. Each message is one sentence for the user."""

import pickle


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says why, and what to do."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """There is no such file."""


class UnsafeCheckpointError(CheckpointError, pickle.UnpicklingError):
    """The file asks for a type that is not on the list.

    A subclass of what ``torch.load`` raises for the same reason, so that code
    written for torch's error keeps working.
    """


class DamagedCheckpointError(CheckpointError, pickle.UnpicklingError):
    """The file is no checkpoint, or only the beginning of one."""


class WrongWeightsError(CheckpointError, RuntimeError):
    """The weights belong to another model than the one at hand.

    A subclass of what PyTorch's ``load_state_dict`` raises.
    """


class MissingPrefixError(WrongWeightsError, AssertionError):
    """No name of the file begins with the prefix asked for.

    Also a subclass of what MMEngine raises for the same reason.
    """


class DownloadError(CheckpointError, RuntimeError):
    """The file could not be downloaded."""
