"""The type checker that pytest puts on every function of the library: beartype, with int taken for float (PEP 484).

Where beartype is not installed nothing is checked.
"""

from importlib.util import find_spec
from typing import Any

if find_spec("beartype") is None:

    def typechecked(function: Any) -> Any:
        """Leave a function as it is."""
        return function

else:
    from beartype import BeartypeConf, beartype

    typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
