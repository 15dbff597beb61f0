// Vectors of 64-bit lanes for the generator: compilers turn its 32 x 32 bit products into slow
// 64 x 64 bit ones, so they are written out where the instruction set is known.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
// GCC's own header passes variables that are left undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace wide {

#if defined(__AVX512F__)
using Lanes = __m512i;
inline Lanes all(uint64_t a) { return _mm512_set1_epi64(static_cast<long long>(a)); }
inline Lanes count() { return _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0); }
inline Lanes add(Lanes a, Lanes b) { return _mm512_add_epi64(a, b); }
inline Lanes product(Lanes a, Lanes b) { return _mm512_mul_epu32(a, b); }  // of lower halves
inline Lanes upper(Lanes a) { return _mm512_srli_epi64(a, 32); }
inline Lanes xor3(Lanes a, Lanes b, Lanes c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
// Lower halves of two vectors, those of `low` in the lower halves of the result.
inline Lanes merged(Lanes low, Lanes high) {
  return _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32));
}
// a0 b0 a1 b1 ...: 2 * 8 words of 64 bits at `to`.
inline void store_pairs(uint64_t *to, Lanes a, Lanes b) {
  const Lanes first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
  const Lanes second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi64(a, first, b));
  _mm512_storeu_si512(to + 8, _mm512_permutex2var_epi64(a, second, b));
}
constexpr size_t kWidth = 8;
#elif defined(__AVX2__)
using Lanes = __m256i;
inline Lanes all(uint64_t a) { return _mm256_set1_epi64x(static_cast<long long>(a)); }
inline Lanes count() { return _mm256_set_epi64x(3, 2, 1, 0); }
inline Lanes add(Lanes a, Lanes b) { return _mm256_add_epi64(a, b); }
inline Lanes product(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
inline Lanes upper(Lanes a) { return _mm256_srli_epi64(a, 32); }
inline Lanes xor3(Lanes a, Lanes b, Lanes c) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}
inline Lanes merged(Lanes low, Lanes high) {
  return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA);
}
inline void store_pairs(uint64_t *to, Lanes a, Lanes b) {
  const Lanes low = _mm256_unpacklo_epi64(a, b), high = _mm256_unpackhi_epi64(a, b);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 4),
                      _mm256_permute2x128_si256(low, high, 0x31));
}
constexpr size_t kWidth = 4;
#else
using Lanes = uint64_t;
inline Lanes all(uint64_t a) { return a; }
inline Lanes count() { return 0; }
inline Lanes add(Lanes a, Lanes b) { return a + b; }
inline Lanes product(Lanes a, Lanes b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
inline Lanes upper(Lanes a) { return a >> 32; }
inline Lanes xor3(Lanes a, Lanes b, Lanes c) { return a ^ b ^ c; }
inline Lanes merged(Lanes low, Lanes high) { return (low & 0xFFFFFFFFu) | (high << 32); }
inline void store_pairs(uint64_t *to, Lanes a, Lanes b) {
  to[0] = a;
  to[1] = b;
}
constexpr size_t kWidth = 1;
#endif

}  // namespace wide

#if defined(__AVX512F__) || defined(__AVX2__)
#pragma GCC diagnostic pop
#endif
