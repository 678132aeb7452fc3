"""The type checker that pytest puts on every function of the library: beartype, with int taken for float (PEP 484)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
