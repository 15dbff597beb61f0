"""fpemu: low-precision floating point, emulated bit for bit.

Formats, rounding and keys come from the standard library alone; array verbs load NumPy on first
use, and a backend when it is first called.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpemu import backends as backends
    from fpemu import distances as distances
    from fpemu import interop as interop
    from fpemu import layouts as layouts
    from fpemu import metrics as metrics
    from fpemu import qsnr as qsnr
    from fpemu import storage as storage
    from fpemu import transforms as transforms
    from fpemu.arrays import decode as decode
    from fpemu.arrays import encode as encode
    from fpemu.arrays import quantize as quantize
    from fpemu.blocks import BlockFormat as BlockFormat
    from fpemu.catalog import format as format
    from fpemu.contract import CONTRACT as CONTRACT
    from fpemu.describe import diff as diff
    from fpemu.describe import explain as explain
    from fpemu.formats import Format as Format
    from fpemu.formats import Specials as Specials
    from fpemu.formats import Subnormals as Subnormals
    from fpemu.keys import Key as Key
    from fpemu.metrics import Report as Report
    from fpemu.metrics import error as error
    from fpemu.metrics import report as report
    from fpemu.packing import pack as pack
    from fpemu.packing import unpack as unpack
    from fpemu.policy import Overflow as Overflow
    from fpemu.policy import Policy as Policy
    from fpemu.quantized import Quantized as Quantized
    from fpemu.quantized import compress as compress
    from fpemu.rounding import PseudoNoise as PseudoNoise
    from fpemu.rounding import Rounding as Rounding
    from fpemu.rounding import Stochastic as Stochastic
    from fpemu.scales import ScaleRule as ScaleRule
    from fpemu.storage import load as load
    from fpemu.storage import save as save
    from fpemu.table_format import TableFormat as TableFormat
    from fpemu.transforms import hadamard as hadamard
    from fpemu.transforms import inverse_randomised_hadamard as inverse_randomised_hadamard
    from fpemu.transforms import randomised_hadamard as randomised_hadamard
    from fpemu.values import Special as Special

# Where each public name lives; loaded on first use, so that `import fpemu` costs nothing.
_HOME = {
    "BlockFormat": "blocks",
    "CONTRACT": "contract",
    "Format": "formats",
    "Key": "keys",
    "Overflow": "policy",
    "Policy": "policy",
    "PseudoNoise": "rounding",
    "Quantized": "quantized",
    "Report": "metrics",
    "Rounding": "rounding",
    "ScaleRule": "scales",
    "Special": "values",
    "Specials": "formats",
    "Stochastic": "rounding",
    "Subnormals": "formats",
    "TableFormat": "table_format",
    "compress": "quantized",
    "decode": "arrays",
    "diff": "describe",
    "encode": "arrays",
    "error": "metrics",
    "explain": "describe",
    "format": "catalog",
    "hadamard": "transforms",
    "inverse_randomised_hadamard": "transforms",
    "load": "storage",
    "pack": "packing",
    "quantize": "arrays",
    "randomised_hadamard": "transforms",
    "report": "metrics",
    "save": "storage",
    "unpack": "packing",
}
_MODULES = (
    "backends",
    "distances",
    "interop",
    "layouts",
    "metrics",
    "qsnr",
    "storage",
    "transforms",
)

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _HOME:
        value: object = getattr(import_module(f"fpemu.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"fpemu.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("fpemu")
    else:
        raise AttributeError(f"module 'fpemu' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
