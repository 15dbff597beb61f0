"""Policies: what becomes of overflow, infinities, NaN and the sign of zero.

The overflow names are P3109's (interim report 4.0). With none given a format's own default
applies: `sat_none` where it has infinities, `sat_finite` where it has none.

============= ============================ =====================================
overflow      finite beyond the range      infinite input
============= ============================ =====================================
sat_finite    largest finite               largest finite
sat_propagate largest finite               infinity; largest finite if there is none
sat_none      infinity; without one, NaN   infinity; without one, NaN for fn, fnuz
              for fn, fnuz and e8m0, else  and e8m0, else the largest finite
              the largest finite
============= ============================ =====================================

Overflow is decided after rounding with an unbounded exponent. `toward_zero`, a directed mode
that points inward, and `to_odd` give the largest finite value for finite overflow under every
policy (P3109's signed extended formats follow the draft: to_odd overflows to infinity under
sat_none). Unsigned formats: what rounds to zero is zero, other negatives are 0 under sat_finite
and sat_propagate and NaN under sat_none. Formats without zero (e8m0): a positive underflow is
the smallest value; zero and negatives are the smallest value under sat_finite, NaN otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fpemu.choices import member
from fpemu.formats import Format, Specials
from fpemu.rounding import Rounding


class Overflow(StrEnum):
    SAT_FINITE = "sat_finite"
    SAT_PROPAGATE = "sat_propagate"
    SAT_NONE = "sat_none"


class NanRule(StrEnum):
    """What `encode` writes for NaN in a format without NaN."""

    ERROR = "error"
    ZERO = "zero"
    MAX = "max"
    NEGATIVE_ZERO = "negative_zero"


class ZeroSign(StrEnum):
    """`keep` where the format has -0; `drop_input`: -0 itself becomes +0, tiny negatives still
    round to -0; `drop`: never -0."""

    KEEP = "keep"
    DROP_INPUT = "drop_input"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens at the edges of a format; see this module for the table.

    `overflow` None means the format's default. `nan` is for codes of formats without NaN; in
    value space NaN stays NaN unless `nan_in_values`. The other fields imitate other libraries
    and are off by default: `infinity_always` keeps infinities in value space even where the
    format has none (`encode` refuses such a value); `magnitude_only` drops the sign in an
    unsigned format, and maps zero to the smallest value where there is no zero;
    `through_float32` rounds float64 input to float32 first, where float32 holds the format.
    Errors: ValueError for an unknown name.
    """

    overflow: Overflow | None = None
    nan: NanRule = NanRule.ERROR
    zero_sign: ZeroSign = ZeroSign.KEEP
    nan_in_values: bool = False
    infinity_always: bool = False
    magnitude_only: bool = False
    through_float32: bool = False

    def __post_init__(self) -> None:
        if self.overflow is not None:
            object.__setattr__(self, "overflow", member(Overflow, "overflow", self.overflow))
        object.__setattr__(self, "nan", member(NanRule, "nan", self.nan))
        object.__setattr__(self, "zero_sign", member(ZeroSign, "zero_sign", self.zero_sign))
        if self.nan_in_values and self.nan is NanRule.ERROR:
            raise ValueError("nan_in_values needs a nan rule other than 'error'")

    def overflow_for(self, fmt: Format) -> Overflow:
        """The overflow rule that applies to `fmt`."""
        if self.overflow is not None:
            return self.overflow
        return Overflow.SAT_NONE if fmt.has_inf else Overflow.SAT_FINITE


@dataclass(frozen=True, slots=True)
class Preset:
    """Another library's behaviour: its rounding and policy per format, and what is not imitated."""

    name: str
    imitates: str
    note: str
    choose: Callable[[Format], tuple[Rounding, Policy]]


def _everywhere(
    policy: Policy, rounding: Rounding = Rounding.NEAREST_EVEN
) -> Callable[[Format], tuple[Rounding, Policy]]:
    return lambda fmt: (rounding, policy)


def _ml_dtypes(fmt: Format) -> tuple[Rounding, Policy]:
    narrow = fmt.specials is Specials.FINITE
    policy = Policy(
        Overflow.SAT_FINITE if narrow else Overflow.SAT_NONE,
        nan=NanRule.NEGATIVE_ZERO if narrow else NanRule.ERROR,
        nan_in_values=narrow,
        through_float32=True,
    )
    return _half_up_without_zero(fmt), policy


def _torch(fmt: Format) -> tuple[Rounding, Policy]:
    policy = Policy(
        Overflow.SAT_FINITE if fmt.specials is Specials.FN else Overflow.SAT_NONE,
        magnitude_only=not fmt.has_zero,
        through_float32=True,
    )
    return _half_up_without_zero(fmt), policy


def _half_up_without_zero(fmt: Format) -> Rounding:
    return Rounding.NEAREST_EVEN if fmt.has_zero else Rounding.NEAREST_AWAY


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "ocp_sat",
            "OCP OFP8 1.0, SAT mode",
            "finite overflow and infinities become the largest finite value",
            _everywhere(Policy(Overflow.SAT_FINITE)),
        ),
        Preset(
            "ocp_nonsat",
            "OCP OFP8 1.0, NONSAT mode",
            "overflow becomes infinity (e5m2) or NaN (e4m3fn)",
            _everywhere(Policy(Overflow.SAT_NONE)),
        ),
        Preset(
            "ptx_satfinite",
            "PTX cvt.rn.satfinite",
            "NaN becomes the largest value where the format has no NaN",
            _everywhere(Policy(Overflow.SAT_FINITE, nan=NanRule.MAX)),
        ),
        Preset(
            "ml_dtypes",
            "ml_dtypes 0.6.0",
            "float64 goes through float32; FP4 and FP6 saturate and turn NaN into -0; "
            "E8M0 rounds halves up; not imitated: NaN with its sign bit set becomes +0 in FP4 and "
            "FP6, and between its two smallest values E8M0 always rounds up",
            _ml_dtypes,
        ),
        Preset(
            "torch",
            "torch 2.13, CPU casts",
            "e4m3fn saturates, the others do not; E8M0 drops the sign and rounds halves up; "
            "float64 goes through float32",
            _torch,
        ),
        Preset(
            "microxcaling",
            "microxcaling 7bc4195, elementwise defaults (round='nearest', no saturation)",
            "not imitated: values just under half the smallest subnormal round up there",
            _everywhere(
                Policy(
                    Overflow.SAT_NONE,
                    zero_sign=ZeroSign.DROP_INPUT,
                    infinity_always=True,
                ),
                Rounding.NEAREST_AWAY,
            ),
        ),
        Preset(
            "qtorch",
            "QPyTorch f58bba7, float_quantize(rounding='nearest')",
            "every code there is finite: use e4m3finite for its E4M3 (max 480); not imitated: "
            "some inputs just below a tie round up there",
            _everywhere(
                Policy(
                    Overflow.SAT_FINITE,
                    nan=NanRule.MAX,
                    nan_in_values=True,
                    zero_sign=ZeroSign.DROP,
                ),
                Rounding.NEAREST_AWAY,
            ),
        ),
    )
}

_DEFAULT = Policy()


def parse_policy(policy: Policy | str | None, fmt: Format) -> tuple[Rounding | None, Policy]:
    """The policy meant, and the rounding that comes with it (presets only, else None).

    `policy` is a Policy, the name of an overflow rule or of a preset, or None for the format's
    default. Errors: ValueError listing the names, TypeError for another type.
    """
    if policy is None:
        return None, _DEFAULT
    if isinstance(policy, Policy):
        return None, policy
    if not isinstance(policy, str):
        raise TypeError(f"policy must be a Policy or a str, got {type(policy).__name__} {policy!r}")
    name = policy.strip().lower()
    if name in PRESETS:
        return PRESETS[name].choose(fmt)
    if name in Overflow.__members__.values():
        return None, Policy(Overflow(name))
    allowed = ", ".join([*Overflow, *PRESETS])
    raise ValueError(f"policy must be a Policy or one of {allowed}; got {policy!r}")
