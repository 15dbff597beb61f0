// Pseudo rounding: R of a 16-bit draw, and w + R * delta.
#pragma once

#include "config.h"

namespace fpemu {

enum Noise : uint32_t { ROUNDED_GAUSSIAN = 0, GAUSSIAN = 1, UNIFORM = 2 };

// `table` holds 65536 floats, half the normal quantile by draw; for GAUSSIAN only.
FPEMU_HD float noise_value(uint32_t draw, uint32_t kind, const float *table) {
  if (kind == ROUNDED_GAUSSIAN) {
    const uint32_t v = draw & 0x7fffu;
    const float size = static_cast<float>((v < 10398u) + (v < 88u));
    return draw >> 15 ? -size : size;
  }
  if (kind == UNIFORM) {
    return static_cast<float>(2 * static_cast<int32_t>(draw) + 1 - 65536) * 0x1p-17f;
  }
  return table[draw];
}

// A product and a sum, each rounded; `w` itself where the product is zero or R is.
template <class F> FPEMU_HD F noisy(F w, float r, F delta) {
  const F term = static_cast<F>(r) * delta;
  return r == 0.0f || term == static_cast<F>(0) ? w : w + term;
}

}  // namespace fpemu
