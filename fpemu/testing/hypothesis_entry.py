"""What hypothesis imports at its own import: ``st.from_type(Format)`` and the like.

Hypothesis finds this module through its entry point. Only names are registered here; the
strategies, and NumPy with them, are loaded when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fpemu.blocks import BlockFormat
from fpemu.formats import Format
from fpemu.keys import Key
from fpemu.policy import Policy
from fpemu.rounding import PseudoNoise, Rounding, Stochastic
from fpemu.scales import ScaleRule


def _strategy(kind: type[Any]) -> st.SearchStrategy[Any]:
    from fpemu.testing import strategies

    makers: dict[type[Any], Callable[[], st.SearchStrategy[Any]]] = {
        BlockFormat: strategies.block_formats,
        Format: strategies.formats,
        Key: strategies.keys,
        Policy: strategies.policies,
        PseudoNoise: strategies.pseudo_noise,
        Rounding: lambda: st.sampled_from(Rounding),
        ScaleRule: strategies.scale_rules,
        Stochastic: strategies.stochastic,
    }
    return makers[kind]()


for _kind in (BlockFormat, Format, Key, Policy, PseudoNoise, Rounding, ScaleRule, Stochastic):
    st.register_type_strategy(_kind, _strategy)
