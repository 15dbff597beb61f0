// Philox4x32-10 (Salmon et al., SC 2011) and the address of a draw.
// Counter: (block low, block high, stream low, stream high); key: the seed, low word first.
#pragma once

#include "config.h"
#include "params.h"

namespace fpemu {

struct Words {
  uint32_t w[4];
};

FPEMU_HD uint32_t high_product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
#endif
}

FPEMU_HD Words philox(uint64_t block, uint64_t stream, uint64_t seed) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const uint32_t h0 = high_product(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    const uint32_t h1 = high_product(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ k1;
    c3 = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Words{{c0, c1, c2, c3}};
}

// The global index of local element j, modulo 2^64.
FPEMU_HD uint64_t global_index(const fpemu_key &key, uint64_t j) {
  const uint64_t local = key.first + j;
  if (key.row_length == 0) return key.offset + local;
  const uint64_t row = local / key.row_length;
  return key.offset + row * key.row_stride + (local - row * key.row_length);
}

// Lane `index % (128 / bits)` of a block, lanes from the low bits of word 0 upward.
template <int bits> FPEMU_HD uint32_t lane_of(const Words &words, uint64_t index) {
  const uint32_t lane = static_cast<uint32_t>(index) & (128u / bits - 1u);
  const uint32_t word = words.w[lane / (32u / bits)];
  if (bits == 32) return word;
  return (word >> (lane % (32u / bits) * bits)) & ((1u << (bits % 32)) - 1u);
}

template <int bits> FPEMU_HD uint32_t draw_lane(const fpemu_key &key, uint64_t j) {
  const uint64_t index = global_index(key, j);
  return lane_of<bits>(philox(index / (128u / bits), key.stream, key.seed), index);
}

}  // namespace fpemu
