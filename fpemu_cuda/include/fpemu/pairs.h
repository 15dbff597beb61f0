// bfloat16 patterns two by two in a 32-bit word, nearest even by addition in float32.
//
//   word   | s eeeeeeee mmmmmmm | s eeeeeeee mmmmmmm |
//            upper half           lower half
//
// The power of two that is added, 2^(e + 23 - m), is a bfloat16 value, so it is made for both
// halves at once: exponent fields never carry into the other half, because `by_addition` holds.
#pragma once

#include "round.h"

namespace fpemu {

FPEMU_HD uint32_t both(uint32_t half) { return half | half << 16; }

FPEMU_HD uint32_t max_of_halves(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __vmaxu2(a, b);
#else
  const uint32_t low = greatest(a & 0xffffu, b & 0xffffu);
  return greatest(a & 0xffff0000u, b & 0xffff0000u) | low;
#endif
}

FPEMU_HD uint32_t min_of_halves(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __vminu2(a, b);
#else
  const uint32_t low = least(a & 0xffffu, b & 0xffffu);
  return least(a & 0xffff0000u, b & 0xffff0000u) | low;
#endif
}

// The constants of a format, the same in both halves.
struct Pairs {
  uint32_t smallest, lift, clamp, rare_from;
  Addition<uint32_t> one;  // for single elements, and for pairs with a rare one

  explicit Pairs(const fpemu_params &p)
      : smallest(both(static_cast<uint32_t>((p.emin_field - kFieldOffset) << 7))),
        lift(both(static_cast<uint32_t>((p.shift + 16) << 7))),
        clamp(p.over_pos == p.max_pos ? both(static_cast<uint32_t>(p.max_pos)) : 0x7fff7fffu),
        rare_from(static_cast<uint32_t>(p.over_pos == p.max_pos ? p.infinity + 1 : p.limit_pos)),
        one(widened_bfloat16(p)) {}
};

FPEMU_HD uint16_t round_half(uint16_t u, const Pairs &p) {
  return static_cast<uint16_t>(round_by_addition(static_cast<uint32_t>(u) << 16, p.one) >> 16);
}

// Whether a half is NaN, or overflows to something else than the largest value.
FPEMU_HD bool has_rare(uint32_t peak, const Pairs &p) {
  return (peak & 0xffffu) >= p.rare_from || (peak >> 16) >= p.rare_from;
}

// Both halves, where neither is rare. Formats without -0 are not for this function.
FPEMU_HD uint32_t round_pair(uint32_t word, const Pairs &p) {
  const uint32_t a = min_of_halves(word & 0x7fff7fffu, p.clamp);
  const uint32_t power = max_of_halves(a & 0x7f807f80u, p.smallest) + p.lift;
  const float low_power = as_float(power << 16), high_power = as_float(power & 0xffff0000u);
  const float low = (as_float(a << 16) + low_power) - low_power;
  const float high = (as_float(a & 0xffff0000u) + high_power) - high_power;
  // Results are bfloat16 values: their lower halves are zero.
  const uint32_t rounded = as_bits(low) >> 16 | as_bits(high);
  return rounded | (word & 0x80008000u);
}

// Variant A with 16-bit lanes, where `pairs_draw` holds and no half is beyond the largest value.
//
// With q the quantum, |x| + q * (1 + r / 2^16) is floored to q and q subtracted: away iff the
// fraction and the draw reach 1. Sums are cut toward zero, which cannot cross a multiple of q.
#if defined(__CUDACC__)
struct StochasticPairs {
  uint32_t smallest, lift, quanta, drawn, rare_from;
  Core<uint32_t> core;  // for single elements, and for pairs with a rare one

  explicit StochasticPairs(const fpemu_params &p)
      : smallest(both(static_cast<uint32_t>((p.emin_field - kFieldOffset) << 7))),
        lift(both(static_cast<uint32_t>((p.shift + 16) << 7))),
        quanta(static_cast<uint32_t>((p.shift + 16 + p.m) << 23)),
        drawn(0x7fff80u & (0u - (1u << (23 - p.random_bits)))),
        rare_from(static_cast<uint32_t>(p.max_pos + 1)), core(p) {}
};

__device__ __forceinline__ float floor_to_quantum(float size, uint32_t power, uint32_t draw,
                                                  const StochasticPairs &p) {
  const float step = as_float((power - p.quanta) | draw);  // q * (1 + r / 2^16)
  const float sum = __fadd_rz(size, step);
  return __fadd_rn(__fadd_rz(sum, as_float(power)), -as_float(power + 1u));
}

__device__ __forceinline__ uint32_t round_pair(uint32_t word, uint32_t lanes,
                                               const StochasticPairs &p) {
  const uint32_t a = word & 0x7fff7fffu;
  const uint32_t power = max_of_halves(a & 0x7f807f80u, p.smallest) + p.lift;
  const float low = floor_to_quantum(as_float(a << 16), power << 16, (lanes << 7) & p.drawn, p);
  const float high = floor_to_quantum(as_float(a & 0xffff0000u), power & 0xffff0000u,
                                      (lanes >> 9) & p.drawn, p);
  return as_bits(low) >> 16 | as_bits(high) | (word & 0x80008000u);
}
#endif

// Whether StochasticPairs is right for a record.
inline bool pairs_draw(const fpemu_params &p) {
  const uint64_t top = p.infinity >> p.mc, last = (p.max_pos >> p.mc) + 1;
  const uint64_t emin = p.emin_field - kFieldOffset;
  return p.mode_pos == STOCHASTIC_A && p.width == 16 && p.mc == 7 && p.lane_bits == 16 &&
         p.m >= 1 && is_symmetric(p) && p.tiny_neg == p.sign && last + p.shift + 16 < top &&
         emin > p.m + 2;
}

}  // namespace fpemu
