// What host and device compilers differ in, and operations on bit patterns.
// Shifts here never reach the width of the type; callers clamp first.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define FPEMU_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define FPEMU_HD inline __attribute__((always_inline))
#else
#define FPEMU_HD inline
#endif

namespace fpemu {

template <class U> struct FloatOf;
template <> struct FloatOf<uint32_t> { using type = float; };
template <> struct FloatOf<uint64_t> { using type = double; };

FPEMU_HD float as_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FPEMU_HD double as_float(uint64_t bits) {
#if defined(__CUDA_ARCH__)
  return __longlong_as_double(static_cast<long long>(bits));
#else
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FPEMU_HD uint32_t as_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

FPEMU_HD uint64_t as_bits(double value) {
#if defined(__CUDA_ARCH__)
  return static_cast<uint64_t>(__double_as_longlong(value));
#else
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

// Both values are evaluated, so that loops have no branches and compilers vectorise them.
template <class U> FPEMU_HD U pick(bool first, U a, U b) { return first ? a : b; }
template <class U> FPEMU_HD U least(U a, U b) { return a < b ? a : b; }
template <class U> FPEMU_HD U greatest(U a, U b) { return a > b ? a : b; }

// Position of the highest set bit of a nonzero value.
FPEMU_HD uint32_t leading_bit(uint32_t a) {
#if defined(__CUDA_ARCH__)
  return 31u - static_cast<uint32_t>(__clz(static_cast<int>(a)));
#else
  return 31u - static_cast<uint32_t>(__builtin_clz(a));
#endif
}

FPEMU_HD uint64_t leading_bit(uint64_t a) {
#if defined(__CUDA_ARCH__)
  return 63u - static_cast<uint64_t>(__clzll(static_cast<long long>(a)));
#else
  return 63u - static_cast<uint64_t>(__builtin_clzll(a));
#endif
}

}  // namespace fpemu
