// Patterns of a format's values to its codes and back, in 64-bit integers for every container.
#pragma once

#include "round.h"

namespace fpemu {

// The pattern of a value of the format (or an infinity or NaN) to its code.
template <bool deep>
FPEMU_HD uint64_t encode_pattern(uint64_t u, const Core<uint64_t> &core, const fpemu_params &p) {
  const uint64_t a = u & (p.sign - 1);
  const bool negative = u != a;
  const Located<uint64_t> at = locate<uint64_t, deep>(a, core);
  const uint64_t first_normal = static_cast<uint64_t>(1) << p.m;
  uint64_t code;
  if (a < p.emin_bits) {
    code = at.sig >> least<uint64_t>(at.drop, 63);  // a count of quanta
  } else if (p.twos) {
    code = first_normal;  // only -2^m lies up here
  } else {
    const uint64_t field = at.lead_field + kFieldOffset - p.code_offset;
    code = (at.sig >> least<uint64_t>(at.drop, 63)) - first_normal + (field << p.m);
  }
  if (a == p.infinity) code = p.code_inf;
  if (negative) code = p.twos ? (0 - code) & ((p.code_sign << 1) - 1) : code | p.code_sign;
  return a > p.infinity ? p.code_nan : code;
}

// A code below 2^code_bits to the pattern of its value.
FPEMU_HD uint64_t decode_code(uint64_t c, const fpemu_params &p) {
  const uint64_t nan = p.infinity | (static_cast<uint64_t>(1) << (p.mc - 1));
  const uint64_t first_normal = static_cast<uint64_t>(1) << p.m;
  const bool negative = (c & p.code_sign) != 0;
  uint64_t magnitude = c;
  if (p.twos) {
    if (negative) magnitude = (0 - c) & ((p.code_sign << 1) - 1);
  } else if (p.code_sign) {
    magnitude = c & (p.code_sign - 1);
  }
  const bool counted = p.twos || (magnitude < first_normal && p.floor_bits == 0);
  // value = significand * 2^(place - 1) quanta of the container's smallest subnormal
  const uint64_t field = magnitude >> p.m;
  const uint64_t significand =
      counted ? magnitude : ((magnitude & (first_normal - 1)) | first_normal);
  const uint64_t place =
      counted ? p.quantum_field : field + p.code_offset + p.mc - p.m - kFieldOffset;
  uint64_t pattern = 0;
  if (significand != 0 && !(p.flush && magnitude < first_normal)) {
    const uint64_t lead = leading_bit(significand);
    const uint64_t result_field = lead + place + kFieldOffset - p.mc;  // offset included
    if (result_field > kFieldOffset) {
      const uint64_t shifted = lead <= p.mc ? significand << (p.mc - lead) : significand;
      pattern = (shifted & ((static_cast<uint64_t>(1) << p.mc) - 1)) +
                ((result_field - kFieldOffset) << p.mc);
    } else {
      pattern = significand << ((place - 1) & 63);
    }
  }
  if (negative) pattern |= p.sign;
  if (pattern == p.sign) pattern = p.tiny_neg;
  if (!p.twos) {
    if (magnitude > p.code_top) {
      pattern = nan;
      if (p.code_inf && magnitude == p.code_inf) pattern = p.infinity | (negative ? p.sign : 0);
    }
    // NaN in the place of -0
    if (p.code_sign && c == p.code_sign && p.code_nan == p.code_sign) pattern = nan;
  }
  return pattern;
}

}  // namespace fpemu
