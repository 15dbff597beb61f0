"""Which records the fast kernels of the numba backend are right for."""

from __future__ import annotations

from fpemu.lowering import FIELD_OFFSET, Mode, Params


def is_plain_nearest_even(params: Params) -> bool:
    # m = 0 has its ties decided by the exponent, which the fast kernels do not look at
    return params.mode_pos == Mode.NEAREST_EVEN and params.m >= 1 and is_symmetric(params)


def is_symmetric(params: Params) -> bool:
    """Gradual underflow, signs that mirror each other, infinities as any other overflow."""
    sign, nan = params.sign, params.nan
    return (
        params.max_pos == params.max_neg
        and params.over_neg == (nan if params.over_pos == nan else params.over_pos | sign)
        and (params.inf_pos, params.inf_neg) == (params.over_pos, params.over_neg)
        and params.keep == 2 * sign - 1
        and (params.zero_pos, params.zero_neg) == (0, params.tiny_neg)
        and nan == params.infinity | 1 << (params.mc - 1)
        and params.shift >= 1
        and not (params.deep or params.flush or params.floor_bits)
    )


def is_exponent_only(params: Params) -> bool:
    """Whether codes are the exponent fields of float32: E8M0."""
    return (
        params.width == 32
        and (params.m, params.code_bits, params.code_sign) == (0, 8, 0)
        and params.code_offset == FIELD_OFFSET
        and params.floor_bits == 1 << 22
        and params.code_nan == 255
    )


def by_addition(params: Params, mantissa_bits: int) -> bool:
    """Whether 2**(e + mc - m) is finite for every e that does not overflow, and the quantum so
    far above the smallest normal that hardware flushing subnormals cannot change a result."""
    top = params.infinity >> params.mc
    shift = mantissa_bits - params.m
    last = params.limit_pos >> params.mc
    return last + shift < top and params.emin_field - FIELD_OFFSET - params.m > 2
