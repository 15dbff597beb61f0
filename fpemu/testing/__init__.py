"""fpemu's property suite, for its own backends and for quantizers of other people.

- `check(quantizer, fmt)` runs every law that applies and stops at the first that does not hold,
  `violations` goes on; `LAWS` lists them (`fpemu.testing.laws`).
- `Backend`, `Reference` and `Tabulated` are quantizers; `Quantizer` says what yours must have.
- `points(fmt, dtype)` are the inputs where rounding breaks, `draws` what a key gives.
- `check_blocks`, `block_violations`, `BLOCK_LAWS`, `BlockBackend`, `BlockReference`,
  `BlockQuantizer` and `block_points` are the same for block formats
  (`fpemu.testing.block_laws`).
- `Table` is the independent oracle (`fpemu.testing.oracle`), `pseudo_round` that of noise.
- `fpemu.testing.strategies` are hypothesis strategies, and the only part that needs hypothesis.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpemu.testing._block_points import block_points as block_points
    from fpemu.testing._block_quantizers import BlockBackend as BlockBackend
    from fpemu.testing._block_quantizers import BlockCodec as BlockCodec
    from fpemu.testing._block_quantizers import BlockQuantizer as BlockQuantizer
    from fpemu.testing._block_quantizers import BlockReference as BlockReference
    from fpemu.testing._block_quantizers import Stored as Stored
    from fpemu.testing._draws import draws as draws
    from fpemu.testing._draws import lanes as lanes
    from fpemu.testing._patterns import bits as bits
    from fpemu.testing._patterns import containers as containers
    from fpemu.testing._points import points as points
    from fpemu.testing._pseudo import pseudo_round as pseudo_round
    from fpemu.testing._quantizers import Backend as Backend
    from fpemu.testing._quantizers import Codec as Codec
    from fpemu.testing._quantizers import Quantizer as Quantizer
    from fpemu.testing._quantizers import Reference as Reference
    from fpemu.testing._quantizers import Tabulated as Tabulated
    from fpemu.testing.block_laws import BLOCK_LAWS as BLOCK_LAWS
    from fpemu.testing.block_laws import block_violations as block_violations
    from fpemu.testing.block_laws import check_blocks as check_blocks
    from fpemu.testing.laws import LAWS as LAWS
    from fpemu.testing.laws import LawViolation as LawViolation
    from fpemu.testing.laws import check as check
    from fpemu.testing.laws import violations as violations
    from fpemu.testing.oracle import Table as Table
    from fpemu.testing.oracle import table as table

# Loaded on first use: hypothesis imports this package through its entry point, in every project
# that has both installed, and must not pay for NumPy there.
_HOME = {
    "BLOCK_LAWS": "block_laws",
    "LAWS": "laws",
    "Backend": "_quantizers",
    "BlockBackend": "_block_quantizers",
    "BlockCodec": "_block_quantizers",
    "BlockQuantizer": "_block_quantizers",
    "BlockReference": "_block_quantizers",
    "Codec": "_quantizers",
    "LawViolation": "laws",
    "Quantizer": "_quantizers",
    "Reference": "_quantizers",
    "Stored": "_block_quantizers",
    "Table": "oracle",
    "Tabulated": "_quantizers",
    "bits": "_patterns",
    "block_points": "_block_points",
    "block_violations": "block_laws",
    "check": "laws",
    "check_blocks": "block_laws",
    "containers": "_patterns",
    "draws": "_draws",
    "lanes": "_draws",
    "points": "_points",
    "pseudo_round": "_pseudo",
    "table": "oracle",
    "violations": "laws",
}
_MODULES = ("block_laws", "laws", "oracle")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"fpemu.testing.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"fpemu.testing.{name}")
    raise AttributeError(f"module 'fpemu.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
