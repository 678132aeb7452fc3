"""What MONAI wraps into its own errors, as the one line that it was."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the ValueError or OSError that MONAI hides in a RuntimeError of a transform or of a configuration.

    Raises:
        ValueError: As it was raised first.
        OSError: As it was raised first.
    """
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ValueError | OSError):
                raise cause from None
            cause = cause.__cause__
        raise
