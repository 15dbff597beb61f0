// Kernels over the core. Every thread loads and stores 16 bytes at a time; what the vectors leave
// over, and pointers that are not aligned, go element by element in the same launch.
#include <cuda_runtime.h>

#include "abi.h"
#include "fpemu/codec.h"
#include "fpemu/noise.h"
#include "fpemu/pairs.h"
#include "fpemu/philox.h"
#include "fpemu/round.h"

namespace {

using namespace fpemu;

constexpr unsigned kThreads = 256;

template <class T> struct alignas(16) Vector {
  T at[16 / sizeof(T)];
};

bool aligned(const void *a, const void *b) {
  return ((reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) & 15) == 0;
}

unsigned blocks_for(size_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

// ---------------------------------------------------------------- elementwise

// out[i] = op(x[i], i): `unroll` vectors a thread, a block apart, loads before arithmetic.
template <int unroll, class T, class Op>
__global__ void __launch_bounds__(kThreads)
    map_vectors(const T *__restrict__ x, T *__restrict__ out, size_t n, Op op) {
  constexpr size_t width = 16 / sizeof(T);
  const size_t vectors = n / width;
  const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x * unroll + threadIdx.x;
  const Vector<T> *from = reinterpret_cast<const Vector<T> *>(x);
  Vector<T> *to = reinterpret_cast<Vector<T> *>(out);
  Vector<T> v[unroll];
#pragma unroll
  for (int i = 0; i < unroll; ++i) {
    const size_t j = first + static_cast<size_t>(i) * blockDim.x;
    if (j < vectors) v[i] = from[j];
  }
#pragma unroll
  for (int i = 0; i < unroll; ++i) {
    const size_t j = first + static_cast<size_t>(i) * blockDim.x;
    if (j < vectors) {
#pragma unroll
      for (size_t k = 0; k < width; ++k) v[i].at[k] = op(v[i].at[k]);
      to[j] = v[i];
    }
  }
  if (first < n - vectors * width) {
    const size_t j = vectors * width + first;
    out[j] = op(x[j]);
  }
}

template <class T, class S, class Op>
__global__ void __launch_bounds__(kThreads)
    map_elements(const S *__restrict__ x, T *__restrict__ out, size_t n, Op op) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = op(x[i]);
}

template <int unroll, class T, class Op>
int map(const T *x, T *out, size_t n, Op op, cudaStream_t stream) {
  if (aligned(x, out)) {
    const size_t vectors = n / (16 / sizeof(T)) + 1;
    const unsigned blocks = blocks_for((vectors + unroll - 1) / unroll);
    map_vectors<unroll><<<blocks, kThreads, 0, stream>>>(x, out, n, op);
  } else {
    map_elements<<<blocks_for(n), kThreads, 0, stream>>>(x, out, n, op);
  }
  return static_cast<int>(cudaPeekAtLastError());
}

template <class U> struct ByAddition {
  Addition<U> p;
  __device__ U operator()(U u) const { return round_by_addition(u, p); }
};

struct Bfloat16ByAddition {
  Addition<uint32_t> p;
  __device__ uint16_t operator()(uint16_t u) const {
    return static_cast<uint16_t>(round_by_addition(static_cast<uint32_t>(u) << 16, p) >> 16);
  }
};

// bfloat16 by pairs: a vector without rare elements takes the short way.
template <int unroll>
__global__ void __launch_bounds__(kThreads)
    map_pairs(const uint16_t *__restrict__ x, uint16_t *__restrict__ out, size_t n, Pairs p) {
  const size_t vectors = n / 8;
  const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x * unroll + threadIdx.x;
  const uint4 *from = reinterpret_cast<const uint4 *>(x);
  uint4 *to = reinterpret_cast<uint4 *>(out);
  uint4 v[unroll];
#pragma unroll
  for (int i = 0; i < unroll; ++i) {
    const size_t j = first + static_cast<size_t>(i) * blockDim.x;
    v[i] = j < vectors ? __ldg(from + j) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < unroll; ++i) {
    const size_t j = first + static_cast<size_t>(i) * blockDim.x;
    uint32_t *w = reinterpret_cast<uint32_t *>(&v[i]);
    const uint32_t upper = max_of_halves(w[0] & 0x7fff7fffu, w[1] & 0x7fff7fffu);
    const uint32_t lower = max_of_halves(w[2] & 0x7fff7fffu, w[3] & 0x7fff7fffu);
    if (has_rare(max_of_halves(upper, lower), p)) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint32_t low = round_half(static_cast<uint16_t>(w[k]), p);
        w[k] = low | static_cast<uint32_t>(round_half(static_cast<uint16_t>(w[k] >> 16), p)) << 16;
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) w[k] = round_pair(w[k], p);
    }
    if (j < vectors) to[j] = v[i];
  }
  if (first < n - vectors * 8) out[vectors * 8 + first] = round_half(x[vectors * 8 + first], p);
}

template <class U, class T, bool deep> struct AnyRounding {
  Core<U> p;
  __device__ T operator()(T u) const { return static_cast<T>(round_pattern<U, deep>(u, p)); }
};

template <class U, class T>
int round_any(const T *x, T *out, size_t n, const fpemu_params &p, cudaStream_t stream) {
  const Core<U> core(p);
  if (core.deep) return map<1>(x, out, n, AnyRounding<U, T, true>{core}, stream);
  return map<1>(x, out, n, AnyRounding<U, T, false>{core}, stream);
}

// ----------------------------------------------------------------- stochastic

// What a lane does to a pattern. `words` are those of the lane's Philox block.
template <class U, class T, bool deep, int bits> struct Stochastic {
  Core<U> p;
  __device__ T operator()(T u, uint32_t lane) const {
    return static_cast<T>(round_stochastic<U, deep>(u, lane, bits, p));
  }
};

template <class T, bool deep, int bits> struct StochasticA {
  Core<uint32_t> p;
  __device__ T operator()(T u, uint32_t lane) const {
    return static_cast<T>(round_stochastic_a<deep>(u, lane, bits, p));
  }
};

template <int bits> struct StochasticPlain {
  Plain p;
  __device__ uint32_t operator()(uint32_t u, uint32_t lane) const {
    return round_stochastic_plain(u, lane, bits, p);
  }
};

// One Philox block a thread where indices are aligned to blocks: `group` elements, at least one
// vector of them.
template <int bits, class T, class Op>
__global__ void __launch_bounds__(kThreads)
    draw_groups(const T *__restrict__ x, T *__restrict__ out, size_t n, fpemu_key key, Op op) {
  constexpr size_t lanes = 128 / bits, width = 16 / sizeof(T);
  constexpr size_t group = lanes > width ? lanes : width;
  const size_t i = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * group;
  if (i >= n) return;
  const uint64_t block = (key.offset + key.first + i) / lanes;
  if (i + group <= n) {
    Vector<T> v[group / width];
#pragma unroll
    for (size_t k = 0; k < group / width; ++k) v[k] = reinterpret_cast<const Vector<T> *>(x + i)[k];
#pragma unroll
    for (size_t b = 0; b < group / lanes; ++b) {
      const Words words = philox(block + b, key.stream, key.seed);
#pragma unroll
      for (size_t k = 0; k < lanes; ++k) {
        T &element = v[(b * lanes + k) / width].at[(b * lanes + k) % width];
        element = op(element, lane_of<bits>(words, k));
      }
    }
#pragma unroll
    for (size_t k = 0; k < group / width; ++k) reinterpret_cast<Vector<T> *>(out + i)[k] = v[k];
  } else {
    for (size_t k = i; k < n; ++k) out[k] = op(x[k], draw_lane<bits>(key, k));
  }
}

template <int bits, class T, class Op>
__global__ void __launch_bounds__(kThreads)
    draw_elements(const T *__restrict__ x, T *__restrict__ out, size_t n, fpemu_key key, Op op) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = op(x[i], draw_lane<bits>(key, i));
}

template <int bits, class T, class Op>
int draw(const T *x, T *out, size_t n, const fpemu_key &key, Op op, cudaStream_t stream) {
  constexpr size_t lanes = 128 / bits, width = 16 / sizeof(T);
  constexpr size_t group = lanes > width ? lanes : width;
  const uint64_t start = key.offset + key.first;
  // Indices that wrap within the call would need their block counted from 0 again.
  const bool whole = key.row_length == 0 && start % lanes == 0 && start + n >= start;
  if (whole && aligned(x, out)) {
    draw_groups<bits><<<blocks_for((n + group - 1) / group), kThreads, 0, stream>>>(x, out, n, key, op);
  } else {
    draw_elements<bits><<<blocks_for(n), kThreads, 0, stream>>>(x, out, n, key, op);
  }
  return static_cast<int>(cudaPeekAtLastError());
}

// bfloat16 with 16-bit lanes: a vector of eight is one Philox block.
__global__ void __launch_bounds__(kThreads)
    draw_pairs(const uint16_t *__restrict__ x, uint16_t *__restrict__ out, size_t n, fpemu_key key,
               StochasticPairs p) {
  const size_t j = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t vectors = n / 8;
  if (j < vectors) {
    uint4 v = __ldg(reinterpret_cast<const uint4 *>(x) + j);
    const Words words = philox((key.offset + key.first) / 8 + j, key.stream, key.seed);
    uint32_t *w = reinterpret_cast<uint32_t *>(&v);
    const uint32_t upper = max_of_halves(w[0] & 0x7fff7fffu, w[1] & 0x7fff7fffu);
    const uint32_t lower = max_of_halves(w[2] & 0x7fff7fffu, w[3] & 0x7fff7fffu);
    const uint32_t peak = max_of_halves(upper, lower);
    if ((peak & 0xffffu) >= p.rare_from || (peak >> 16) >= p.rare_from) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint32_t low =
            round_stochastic_a<false>(w[k] & 0xffffu, words.w[k] & 0xffffu, 16, p.core);
        w[k] = low | round_stochastic_a<false>(w[k] >> 16, words.w[k] >> 16, 16, p.core) << 16;
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) w[k] = round_pair(w[k], words.w[k], p);
    }
    reinterpret_cast<uint4 *>(out)[j] = v;
  }
  if (j < n - vectors * 8) {
    const size_t i = vectors * 8 + j;
    out[i] = static_cast<uint16_t>(
        round_stochastic_a<false>(x[i], draw_lane<16>(key, i), 16, p.core));
  }
}

template <int bits, class U, class T>
int stochastic(const T *x, T *out, size_t n, const fpemu_params &p, const fpemu_key &key,
               cudaStream_t stream) {
  if constexpr (sizeof(T) == 2 && bits == 16) {
    const uint64_t start = key.offset + key.first;
    const bool whole = key.row_length == 0 && start % 8 == 0 && start + n >= start;
    if (whole && aligned(x, out) && pairs_draw(p)) {
      draw_pairs<<<blocks_for(n / 8 + 1), kThreads, 0, stream>>>(x, out, n, key,
                                                                StochasticPairs(p));
      return static_cast<int>(cudaPeekAtLastError());
    }
  }
  const Core<U> core(p);
  if constexpr (sizeof(U) == 4) {
    if constexpr (sizeof(T) == 4) {
      if (is_plain(p)) return draw<bits>(x, out, n, key, StochasticPlain<bits>{Plain(p)}, stream);
    }
    if (core.variant == 0) {
      if (core.deep) return draw<bits>(x, out, n, key, StochasticA<T, true, bits>{core}, stream);
      return draw<bits>(x, out, n, key, StochasticA<T, false, bits>{core}, stream);
    }
  }
  if (core.deep) return draw<bits>(x, out, n, key, Stochastic<U, T, true, bits>{core}, stream);
  return draw<bits>(x, out, n, key, Stochastic<U, T, false, bits>{core}, stream);
}

template <class U, class T>
int stochastic(const T *x, T *out, size_t n, const fpemu_params &p, const fpemu_key *key,
               cudaStream_t stream) {
  if (!key) return FPEMU_BAD_ARGUMENT;
  switch (p.lane_bits) {
    case 8: return stochastic<8, U>(x, out, n, p, *key, stream);
    case 16: return stochastic<16, U>(x, out, n, p, *key, stream);
    case 32: return stochastic<32, U>(x, out, n, p, *key, stream);
  }
  return FPEMU_BAD_ARGUMENT;
}

// ---------------------------------------------------------------------- codes

template <bool deep, class T, class C> struct Encode {
  Core<uint64_t> core;
  fpemu_params p;
  __device__ C operator()(T u) const { return static_cast<C>(encode_pattern<deep>(u, core, p)); }
};

template <class T, class C> struct Decode {
  fpemu_params p;
  __device__ T operator()(C code) const { return static_cast<T>(decode_code(code, p)); }
};

template <int bits, class Lane>
__global__ void __launch_bounds__(kThreads) fill_lanes(Lane *__restrict__ out, size_t n, fpemu_key key) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = static_cast<Lane>(draw_lane<bits>(key, i));
}

template <class F>
__global__ void __launch_bounds__(kThreads)
    add_noise(const F *__restrict__ w, F *__restrict__ out, const F *__restrict__ delta, size_t n,
              uint32_t noise, const float *__restrict__ table, fpemu_key key) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = noisy(w[i], noise_value(draw_lane<16>(key, i), noise, table), delta[i]);
}

template <class Call> int by_types(uint64_t width, int code_bytes, const Call &call) {
  const auto with_codes = [&](auto *pattern) -> int {
    switch (code_bytes) {
      case 1: return call(pattern, static_cast<uint8_t *>(nullptr));
      case 2: return call(pattern, static_cast<uint16_t *>(nullptr));
      case 4: return call(pattern, static_cast<uint32_t *>(nullptr));
      case 8: return call(pattern, static_cast<uint64_t *>(nullptr));
    }
    return FPEMU_BAD_ARGUMENT;
  };
  switch (width) {
    case 16: return with_codes(static_cast<uint16_t *>(nullptr));
    case 32: return with_codes(static_cast<uint32_t *>(nullptr));
    case 64: return with_codes(static_cast<uint64_t *>(nullptr));
  }
  return FPEMU_BAD_ARGUMENT;
}

template <class U, class T>
int round_to(const void *x, void *out, size_t n, const fpemu_params &p, const fpemu_key *key,
             cudaStream_t stream) {
  const T *from = static_cast<const T *>(x);
  T *to = static_cast<T *>(out);
  if (p.random_bits) return stochastic<U>(from, to, n, p, key, stream);
  if (by_addition(p)) {
    if constexpr (sizeof(T) == 2) {
      const Pairs pairs(p);
      if (aligned(x, out) && !pairs.one.bare_zero) {
        map_pairs<2><<<blocks_for((n / 8 + 2) / 2), kThreads, 0, stream>>>(from, to, n, pairs);
        return static_cast<int>(cudaPeekAtLastError());
      }
      return map<2>(from, to, n, Bfloat16ByAddition{pairs.one}, stream);
    } else {
      return map<1>(from, to, n, ByAddition<U>{Addition<U>(p)}, stream);
    }
  }
  return round_any<U>(from, to, n, p, stream);
}

}  // namespace

extern "C" {

int fpemu_cuda_round(const void *x, void *out, size_t n, const fpemu_params *p,
                     const fpemu_key *key, void *stream) {
  if (!n) return 0;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (p->width) {
    case 16: return round_to<uint32_t, uint16_t>(x, out, n, *p, key, on);
    case 32: return round_to<uint32_t, uint32_t>(x, out, n, *p, key, on);
    case 64: return round_to<uint64_t, uint64_t>(x, out, n, *p, key, on);
  }
  return FPEMU_BAD_ARGUMENT;
}

int fpemu_cuda_encode(const void *x, void *codes, size_t n, int code_bytes, const fpemu_params *p,
                      void *stream) {
  if (!n) return 0;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return by_types(p->width, code_bytes, [&](auto *pattern, auto *code) -> int {
    using T = std::remove_pointer_t<decltype(pattern)>;
    using C = std::remove_pointer_t<decltype(code)>;
    const Core<uint64_t> core(*p);
    const T *from = static_cast<const T *>(x);
    C *to = static_cast<C *>(codes);
    const unsigned blocks = blocks_for(n);
    if (core.deep) {
      map_elements<<<blocks, kThreads, 0, on>>>(from, to, n, Encode<true, T, C>{core, *p});
    } else {
      map_elements<<<blocks, kThreads, 0, on>>>(from, to, n, Encode<false, T, C>{core, *p});
    }
    return static_cast<int>(cudaPeekAtLastError());
  });
}

int fpemu_cuda_decode(const void *codes, void *out, size_t n, int code_bytes,
                      const fpemu_params *p, void *stream) {
  if (!n) return 0;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return by_types(p->width, code_bytes, [&](auto *pattern, auto *code) -> int {
    using T = std::remove_pointer_t<decltype(pattern)>;
    using C = std::remove_pointer_t<decltype(code)>;
    map_elements<<<blocks_for(n), kThreads, 0, on>>>(static_cast<const C *>(codes),
                                                     static_cast<T *>(out), n, Decode<T, C>{*p});
    return static_cast<int>(cudaPeekAtLastError());
  });
}

int fpemu_cuda_lanes(void *out, size_t n, int lane_bits, const fpemu_key *key, void *stream) {
  if (!n) return 0;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  const unsigned blocks = blocks_for(n);
  switch (lane_bits) {
    case 8: fill_lanes<8><<<blocks, kThreads, 0, on>>>(static_cast<uint8_t *>(out), n, *key); break;
    case 16: fill_lanes<16><<<blocks, kThreads, 0, on>>>(static_cast<uint16_t *>(out), n, *key); break;
    case 32: fill_lanes<32><<<blocks, kThreads, 0, on>>>(static_cast<uint32_t *>(out), n, *key); break;
    default: return FPEMU_BAD_ARGUMENT;
  }
  return static_cast<int>(cudaPeekAtLastError());
}

int fpemu_cuda_add_noise(const void *w, void *out, const void *delta, size_t n, int width,
                         int noise, const float *table, const fpemu_key *key, void *stream) {
  if (noise < 0 || noise > 2 || (noise == GAUSSIAN && !table)) return FPEMU_BAD_ARGUMENT;
  if (!n) return 0;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (width == 32) {
    add_noise<<<blocks_for(n), kThreads, 0, on>>>(
        static_cast<const float *>(w), static_cast<float *>(out),
        static_cast<const float *>(delta), n, static_cast<uint32_t>(noise), table, *key);
  } else if (width == 64) {
    add_noise<<<blocks_for(n), kThreads, 0, on>>>(
        static_cast<const double *>(w), static_cast<double *>(out),
        static_cast<const double *>(delta), n, static_cast<uint32_t>(noise), table, *key);
  } else {
    return FPEMU_BAD_ARGUMENT;
  }
  return static_cast<int>(cudaPeekAtLastError());
}

const char *fpemu_cuda_error_name(int status) {
  return cudaGetErrorName(static_cast<cudaError_t>(status));
}

int fpemu_cuda_device_count(void) {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // extern "C"
