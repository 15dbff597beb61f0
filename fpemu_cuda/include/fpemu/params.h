// The records that cross the C interface: plain integers, in the order of fpemu.lowering.Params
// and fpemu.keys.Key. A test compares sizes and offsets with Python's.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fpemu_params {
  // container
  uint64_t width, mc, sign, infinity, keep;
  // rounding
  uint64_t mode_pos, mode_neg, random_bits, lane_bits;
  // grid
  uint64_t m, shift, emin_field, quantum_field, emin_bits, quantum_bits, parity, deep, floor_bits;
  // edges
  uint64_t max_pos, max_neg, limit_pos, limit_neg, over_pos, over_neg, inf_pos, inf_neg, nan;
  uint64_t zero_pos, zero_neg, tiny_neg;
  // codes
  uint64_t code_bits, code_sign, code_offset, twos, code_inf, code_nan, code_top, flush;
} fpemu_params;

typedef struct fpemu_key {
  uint64_t seed, stream, offset;
  uint64_t row_length, row_stride;  // both 0: no rows
  uint64_t first;                   // local index of element 0 of the call
} fpemu_key;

#ifdef __cplusplus
}

namespace fpemu {

enum Mode : uint64_t {
  NEAREST_EVEN = 0,
  NEAREST_AWAY = 1,
  NEAREST_ZERO = 2,
  TRUNCATE = 3,
  AWAY = 4,
  ODD = 5,
  STOCHASTIC_A = 6,
  STOCHASTIC_B = 7,
  STOCHASTIC_C = 8,
  STOCHASTIC_EQUAL = 9,
};

constexpr uint64_t kFieldOffset = 1u << 16;  // added to exponent fields that can be negative

}  // namespace fpemu
#endif
