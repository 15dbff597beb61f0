// Rounding of bit patterns: every format, mode and policy that fpemu.lowering can write down.
//
// U is uint32_t for containers of 16 and 32 bits and uint64_t for float64. A pattern's magnitude
// is an integer that grows with the value, so a carry out of the significand reaches the exponent
// by itself. The significand of a pattern is `sig`; rounding drops its low `drop` bits.
#pragma once

#include "config.h"
#include "params.h"

namespace fpemu {

// fpemu_params in the width of the container, with masks in the place of modes.
template <class U> struct Core {
  U mc, sign, infinity, keep, m, shift, quantum_field, emin_bits, quantum_bits, parity, floor_bits;
  U max_pos, max_neg, over_pos, over_neg, inf_pos, inf_neg, nan, zero_pos, zero_neg, tiny_neg;
  U half, minus, odd_up, away_pos, away_neg, odd_mode;  // nearest modes; directed modes; to odd
  uint32_t random_bits, variant;
  bool deep, powers_of_two;

  static U on(bool flag) { return flag ? static_cast<U>(~static_cast<U>(0)) : static_cast<U>(0); }

  explicit Core(const fpemu_params &p)
      : mc(static_cast<U>(p.mc)), sign(static_cast<U>(p.sign)),
        infinity(static_cast<U>(p.infinity)), keep(static_cast<U>(p.keep)),
        m(static_cast<U>(p.m)), shift(static_cast<U>(p.shift)),
        quantum_field(static_cast<U>(p.quantum_field)), emin_bits(static_cast<U>(p.emin_bits)),
        quantum_bits(static_cast<U>(p.quantum_bits)), parity(static_cast<U>(p.parity)),
        floor_bits(static_cast<U>(p.floor_bits)), max_pos(static_cast<U>(p.max_pos)),
        max_neg(static_cast<U>(p.max_neg)), over_pos(static_cast<U>(p.over_pos)),
        over_neg(static_cast<U>(p.over_neg)), inf_pos(static_cast<U>(p.inf_pos)),
        inf_neg(static_cast<U>(p.inf_neg)), nan(static_cast<U>(p.nan)),
        zero_pos(static_cast<U>(p.zero_pos)), zero_neg(static_cast<U>(p.zero_neg)),
        tiny_neg(static_cast<U>(p.tiny_neg)), half(on(p.mode_pos <= NEAREST_ZERO)),
        minus(p.mode_pos == NEAREST_EVEN || p.mode_pos == NEAREST_ZERO),
        odd_up(p.mode_pos == NEAREST_EVEN), away_pos(on(p.mode_pos == AWAY)),
        away_neg(on(p.mode_neg == AWAY)), odd_mode(on(p.mode_pos == ODD)),
        random_bits(static_cast<uint32_t>(p.random_bits)),
        variant(p.mode_pos >= STOCHASTIC_A ? static_cast<uint32_t>(p.mode_pos - STOCHASTIC_A) : 0),
        deep(p.deep != 0), powers_of_two(p.m == 0) {}
};

template <class U> struct Located {
  U sig, drop, lead_field;
};

template <class U, bool deep> FPEMU_HD Located<U> locate(U a, const Core<U> &p) {
  const U field = greatest<U>(a >> p.mc, 1);
  const U sig = a - ((field - 1) << p.mc);
  U lead = p.mc, normal = p.shift;
  if (deep) {
    lead = leading_bit(sig | 1);
    normal = lead - p.m;
  }
  const U drop = pick<U>(a >= p.emin_bits, normal, p.quantum_field - field);
  return {sig, drop, lead - p.mc + field};
}

// Rounded magnitude `r` of the input magnitude `a` to the result; edges last.
template <class U> FPEMU_HD U edges(U a, bool negative, U r, const Core<U> &p) {
  r = greatest(r, p.floor_bits);
  const U top = pick(negative, p.max_neg, p.max_pos), over = pick(negative, p.over_neg, p.over_pos);
  const U zero = pick(negative, p.zero_neg, p.zero_pos), tiny = pick<U>(negative, p.tiny_neg, 0);
  const U infinite = pick(negative, p.inf_neg, p.inf_pos);
  U result = pick<U>(negative, r | p.sign, r);
  result = pick(r == 0, tiny, result);
  result = pick(r > top, over, result);
  result = pick(a == 0, zero, result);
  result = pick(a == p.infinity, infinite, result);
  return pick(a > p.infinity, p.nan, result);
}

template <class U, bool deep> FPEMU_HD U round_pattern(U x, const Core<U> &p) {
  const U u = x & p.keep, a = u & (p.sign - 1);
  const bool negative = u != a;
  const Located<U> at = locate<U, deep>(a, p);
  const U drop = least<U>(at.drop, p.mc + 2);
  const U step = static_cast<U>(1) << drop, mask = step - 1;
  U odd = (at.sig >> drop) & 1;
  const U by_exponent = pick<U>(a >= p.emin_bits, (at.lead_field ^ p.parity) & 1, 0);
  odd = pick(p.powers_of_two, by_exponent, odd);
  const U nearest = ((step >> 1) & p.half) + (odd & p.odd_up) - p.minus;
  const U outward = pick(negative, p.away_neg, p.away_pos) | ((odd - 1) & p.odd_mode);
  // One of the two is zero: nearest modes have no outward mask and the reverse.
  const U increment = (nearest | outward) & mask;
  const U jump = pick<U>(at.sig + increment >= step, p.quantum_bits, 0);
  const U r = pick<U>(drop > p.mc, jump, (a + increment) & (static_cast<U>(0) - step));
  return edges(a, negative, r, p);
}

// Variant 0 to 3 is A, B, C, equal; `lane` holds `lane_bits` random bits, of which the top
// `random_bits` are the draw. Fractions are compared as 64-bit integers, sticky below.
template <class U, bool deep>
FPEMU_HD U round_stochastic(U x, uint32_t lane, uint32_t lane_bits, const Core<U> &p) {
  const U u = x & p.keep, a = u & (p.sign - 1);
  const bool negative = u != a;
  const Located<U> at = locate<U, deep>(a, p);
  const U drop = least<U>(at.drop, 127);
  const uint64_t sig = at.sig;
  const uint32_t shift = static_cast<uint32_t>(drop);
  uint64_t fraction;
  if (shift == 0) {
    fraction = 0;
  } else if (shift <= 64) {
    fraction = sig << (64 - shift);
  } else {
    const uint32_t beyond = shift - 64;  // at most 63
    fraction = sig >> beyond;
    fraction |= (fraction << beyond) != sig;
  }
  const uint32_t bits = p.random_bits;
  const uint64_t drawn = static_cast<uint64_t>(0) - (static_cast<uint64_t>(1) << (64 - bits));
  const uint64_t draw = (static_cast<uint64_t>(lane) << (64 - lane_bits)) & drawn;
  const uint64_t half = static_cast<uint64_t>(1) << (63 - bits);
  uint64_t term = 0;
  if (p.variant == 1) term = half;
  if (p.variant == 2) term = half - 1 + ((fraction >> (64 - bits)) & 1);
  const uint64_t rounded = fraction + term, total = rounded + draw;
  bool up = rounded < term || total < draw;
  if (p.variant == 3) up = fraction != 0 && draw != 0;
  U r;
  if (drop > p.mc) {
    r = up ? p.quantum_bits : 0;
  } else {
    const U step = static_cast<U>(1) << drop;
    r = (a & (static_cast<U>(0) - step)) + (up ? step : 0);
  }
  return edges(a, negative, r, p);
}

// Variant A in 32 bits, for containers of 16 and 32 bits: at most 25 bits are dropped that matter,
// so the top 32 bits of the fraction decide.
template <bool deep>
FPEMU_HD uint32_t round_stochastic_a(uint32_t x, uint32_t lane, uint32_t lane_bits,
                                     const Core<uint32_t> &p) {
  const uint32_t u = x & p.keep, a = u & (p.sign - 1);
  const bool negative = u != a;
  const Located<uint32_t> at = locate<uint32_t, deep>(a, p);
  const uint32_t drop = least<uint32_t>(at.drop, 63);
  const uint32_t drawn = 0u - (1u << (32 - p.random_bits));
  const uint32_t draw = (lane << (32 - lane_bits)) & drawn;
  // Shift amounts are masked where the value is not used, so that none reaches the width.
  const uint32_t near_fraction = (at.sig << 1) << ((31 - drop) & 31);
  const uint32_t far_fraction = at.sig >> ((drop - 32) & 31);
  const uint32_t fraction = pick(drop <= 31, near_fraction, far_fraction);
  const bool up = fraction + draw < draw;
  const uint32_t step = 1u << (drop & 31);
  const uint32_t near_result = (a & (0u - step)) + pick(up, step, 0u);
  const uint32_t r = pick(drop > p.mc, pick(up, p.quantum_bits, 0u), near_result);
  return edges(a, negative, r, p);
}

// The same where `is_plain` holds: float32 patterns of symmetric formats so far above the smallest
// float32 that nothing is left of subnormal inputs. At or above one quantum the draw is added to
// the pattern under the dropped bits; below, the whole significand is fraction.
struct Plain {
  uint32_t quantum_field, emin_field, quantum, top, over, nan, over_sign, drawn;

  explicit Plain(const fpemu_params &p)
      : quantum_field(static_cast<uint32_t>(p.quantum_field)),
        emin_field(static_cast<uint32_t>(p.emin_field - kFieldOffset)),
        quantum(static_cast<uint32_t>(p.quantum_bits)), top(static_cast<uint32_t>(p.max_pos)),
        over(static_cast<uint32_t>(p.over_pos)), nan(static_cast<uint32_t>(p.nan)),
        over_sign(p.over_pos == p.nan ? 0u : 0x80000000u),
        drawn(0u - (1u << (32 - p.random_bits))) {}
};

FPEMU_HD uint32_t round_stochastic_plain(uint32_t u, uint32_t lane, uint32_t lane_bits,
                                         const Plain &p) {
  const uint32_t a = u & 0x7fffffffu, sign = u & 0x80000000u;
  const uint32_t drop = p.quantum_field - least(a >> 23, p.emin_field);
  const uint32_t draw = (lane << (32 - lane_bits)) & p.drawn;
  const uint32_t near_result = (a + (draw >> ((32 - drop) & 31))) & (0xffffffffu << (drop & 31));
  const uint32_t fraction = ((a << 8) | 0x80000000u) >> least<uint32_t>(drop - 24, 31);
  const uint32_t far_result = pick(fraction + draw < draw, p.quantum, 0u);
  uint32_t r = pick(drop > 23, far_result, near_result);
  r = pick(r > p.top, p.over | (u & p.over_sign), r | sign);
  return pick(a > 0x7f800000u, p.nan, r);
}

// Nearest even by two additions: adding and subtracting 2^(e + mc - m) makes the hardware round
// |x| to the grid. For float32 and float64 patterns of formats that `by_addition` admits.
template <class U> struct Addition {
  U sign, infinity, limit, over, nan, nan_from, smallest, lift;
  bool bare_zero, saturates;

  explicit Addition(const fpemu_params &p)
      : sign(static_cast<U>(p.sign)), infinity(static_cast<U>(p.infinity)),
        limit(static_cast<U>(p.limit_pos)), over(static_cast<U>(p.over_pos)),
        nan(static_cast<U>(p.nan)),
        nan_from(static_cast<U>(p.over_pos == p.nan ? p.limit_pos : p.infinity + 1)),
        smallest(static_cast<U>((p.emin_field - kFieldOffset) << p.mc)),
        lift(static_cast<U>(p.shift << p.mc)), bare_zero(p.tiny_neg == 0),
        saturates(p.over_pos == p.max_pos) {}
};

// The record for bfloat16 patterns moved up into float32 ones, of which they are the upper half.
inline fpemu_params widened_bfloat16(const fpemu_params &p) {
  fpemu_params q = p;
  q.sign <<= 16, q.infinity <<= 16, q.limit_pos <<= 16, q.limit_neg <<= 16, q.max_pos <<= 16;
  q.over_pos <<= 16, q.nan <<= 16, q.tiny_neg <<= 16;
  q.width = 32, q.mc = 23, q.shift += 16;
  return q;
}

template <class U> FPEMU_HD U round_by_addition(U u, const Addition<U> &p) {
  using F = typename FloatOf<U>::type;
  const U a = u & (p.sign - 1);
  const U clamped = p.saturates ? least(a, p.over) : a;
  const F power = as_float(greatest<U>(clamped & p.infinity, p.smallest) + p.lift);
  const F sum = as_float(clamped) + power;
  U r = as_bits(sum - power);
  if (!p.saturates && a >= p.limit) r = p.over;
  U s = u & p.sign;
  if (p.bare_zero && r == 0) s = 0;
  return a >= p.nan_from ? p.nan : (r | s);
}

// Gradual underflow, signs that mirror each other, infinities as any other overflow.
inline bool is_symmetric(const fpemu_params &p) {
  const uint64_t over_neg = p.over_pos == p.nan ? p.nan : (p.over_pos | p.sign);
  return p.max_pos == p.max_neg && p.over_neg == over_neg && p.inf_pos == p.over_pos &&
         p.inf_neg == p.over_neg && p.keep == p.sign - 1 + p.sign && p.zero_pos == 0 &&
         p.zero_neg == p.tiny_neg && p.nan == (p.infinity | (uint64_t{1} << (p.mc - 1))) &&
         p.shift >= 1 && !p.deep && !p.flush && !p.floor_bits;
}

// Whether 2^(e + mc - m) is finite for every e that does not overflow, and the quantum so far
// above the smallest normal that hardware flushing subnormals cannot change a result. Formats
// with m = 0 have their ties decided by the exponent, which the additions do not look at.
inline bool by_addition(const fpemu_params &p) {
  const uint64_t top = p.infinity >> p.mc, last = p.limit_pos >> p.mc;
  const uint64_t emin = p.emin_field - kFieldOffset;
  const bool bfloat16 = p.width == 16 && p.mc == 7;  // computed as float32
  const uint64_t shift = bfloat16 ? p.shift + 16 : p.shift;
  return p.mode_pos == NEAREST_EVEN && p.mode_neg == NEAREST_EVEN && p.m >= 1 &&
         (p.width >= 32 || bfloat16) && is_symmetric(p) && last + shift < top && emin > p.m + 2;
}

// Whether `round_stochastic_plain` is right: no subnormal input can round away from zero.
inline bool is_plain(const fpemu_params &p) {
  return p.mode_pos == STOCHASTIC_A && p.width == 32 && is_symmetric(p) &&
         p.tiny_neg == p.sign && p.emin_field > kFieldOffset && p.quantum_field - 1 > p.mc + 32;
}

}  // namespace fpemu
