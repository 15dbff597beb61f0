// The core in loops on the host. Each loop is a template over what the compiler must know to
// vectorise it; OpenMP shares contiguous parts among threads where it is there.
//
// Compiled once for every instruction set, with FPEMU_TABLE naming the table that results.
#include <algorithm>

#include "abi.h"
#include "host_table.h"
#include "fpemu/codec.h"
#include "fpemu/noise.h"
#include "fpemu/philox.h"
#include "fpemu/round.h"
#include "wide.h"

namespace {

using namespace fpemu;

constexpr size_t kShare = size_t{1} << 16;  // elements a thread must have for its start to pay

// part(begin, end) on contiguous parts of 0..n, whole cache lines each.
template <class Part> void share(size_t n, int threads, const Part &part) {
#if defined(_OPENMP)
  const size_t most = std::max<size_t>(1, n / kShare);
  const int count = static_cast<int>(std::min<size_t>(most, std::max(threads, 1)));
  if (count > 1) {
    const size_t length = ((n + count - 1) / count + 63) / 64 * 64;
#pragma omp parallel for num_threads(count) schedule(static, 1)
    for (int i = 0; i < count; ++i) {
      const size_t begin = std::min(n, i * length), end = std::min(n, begin + length);
      if (begin < end) part(begin, end);
    }
    return;
  }
#else
  (void)threads;
#endif
  if (n) part(0, n);
}

// ------------------------------------------------------------------- rounding

template <bool bare_zero, bool saturates, class U>
void nearest_by_addition(const U *x, U *out, size_t n, Addition<U> p) {
  p.bare_zero = bare_zero;  // constants, so that the loop has no branches
  p.saturates = saturates;
  for (size_t i = 0; i < n; ++i) out[i] = round_by_addition(x[i], p);
}

template <class U> void nearest_by_addition(const U *x, U *out, size_t n, const fpemu_params &q) {
  const Addition<U> p(q);
  if (p.bare_zero) {
    nearest_by_addition<true, false>(x, out, n, p);
  } else if (p.saturates) {
    nearest_by_addition<false, true>(x, out, n, p);
  } else {
    nearest_by_addition<false, false>(x, out, n, p);
  }
}

template <bool bare_zero, bool saturates>
void bfloat16_by_addition(const uint16_t *x, uint16_t *out, size_t n, Addition<uint32_t> p) {
  p.bare_zero = bare_zero;
  p.saturates = saturates;
  for (size_t i = 0; i < n; ++i)
    out[i] = static_cast<uint16_t>(round_by_addition(static_cast<uint32_t>(x[i]) << 16, p) >> 16);
}

template <>
void nearest_by_addition<uint16_t>(const uint16_t *x, uint16_t *out, size_t n,
                                   const fpemu_params &q) {
  const Addition<uint32_t> p(widened_bfloat16(q));
  if (p.bare_zero) {
    bfloat16_by_addition<true, false>(x, out, n, p);
  } else if (p.saturates) {
    bfloat16_by_addition<false, true>(x, out, n, p);
  } else {
    bfloat16_by_addition<false, false>(x, out, n, p);
  }
}

template <bool deep, class U, class T>
void round_loop(const T *__restrict x, T *__restrict out, size_t n, const Core<U> p) {
  for (size_t i = 0; i < n; ++i)
    out[i] = static_cast<T>(round_pattern<U, deep>(static_cast<U>(x[i]), p));
}

// ---------------------------------------------------------------------- draws

constexpr size_t kChunk = 2048;  // lanes drawn together, so that they stay in the first cache

// Elements from `done` whose global indices follow each other: a run ends with its row, and where
// indices wrap at 2^64.
struct Run {
  uint64_t start;
  size_t length;
};

Run run_from(const fpemu_key &key, size_t done, size_t n) {
  const uint64_t start = global_index(key, done);
  uint64_t length = n - done;
  if (key.row_length) length = std::min(length, key.row_length - (key.first + done) % key.row_length);
  const uint64_t until_wrap = uint64_t{0} - start;  // 0 stands for 2^64
  return {start, static_cast<size_t>(std::min(length - 1, until_wrap - 1) + 1)};
}

constexpr size_t kVectors = 4;  // in flight together, to hide the products' latency
constexpr size_t kStep = kVectors * wide::kWidth;

// Philox blocks first .. first + blocks - 1, words 0 and 1 of a block in one uint64, 2 and 3 in the
// next; writes whole steps. Counters live in 64-bit lanes whose upper halves are garbage, which
// the products ignore, so that nothing is repacked between rounds.
void draw_blocks(uint64_t *pairs, uint64_t first, size_t blocks, const fpemu_key &key) {
  const wide::Lanes m0 = wide::all(0xD2511F53u), m1 = wide::all(0xCD9E8D57u);
  for (size_t j = 0; j < blocks; j += kStep) {
    wide::Lanes c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      c0[v] = wide::add(wide::all(first + j + v * wide::kWidth), wide::count());
      c1[v] = wide::upper(c0[v]);
      c2[v] = wide::all(key.stream);
      c3[v] = wide::all(key.stream >> 32);
    }
    uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const wide::Lanes round0 = wide::all(k0), round1 = wide::all(k1);
      for (size_t v = 0; v < kVectors; ++v) {
        const wide::Lanes p0 = wide::product(c0[v], m0), p1 = wide::product(c2[v], m1);
        c0[v] = wide::xor3(wide::upper(p1), c1[v], round0);
        c2[v] = wide::xor3(wide::upper(p0), c3[v], round1);
        c1[v] = p1;
        c3[v] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (size_t v = 0; v < kVectors; ++v) {
      wide::store_pairs(pairs + 2 * (j + v * wide::kWidth), wide::merged(c0[v], c1[v]),
                        wide::merged(c2[v], c3[v]));
    }
  }
}

template <int bits> struct LaneOf;
template <> struct LaneOf<8> { using type = uint8_t; };
template <> struct LaneOf<16> { using type = uint16_t; };
template <> struct LaneOf<32> { using type = uint32_t; };

// use(lanes, begin, count) for every piece of begin..end.
template <int bits, class Use>
void with_lanes(const fpemu_key &key, size_t begin, size_t end, const Use &use) {
  using Lane = typename LaneOf<bits>::type;
  constexpr uint64_t width = 128 / bits;
  alignas(64) uint64_t pairs[kChunk / 2 + 2 * kStep];
  alignas(64) Lane lanes[kChunk];
  for (size_t done = begin; done < end;) {
    const Run run = run_from(key, done, end);
    const size_t count = std::min(run.length, kChunk);
    const size_t skipped = static_cast<size_t>(run.start % width);
    draw_blocks(pairs, run.start / width, (skipped + count + width - 1) / width, key);
    memcpy(lanes, reinterpret_cast<const char *>(pairs) + skipped * sizeof(Lane),
           count * sizeof(Lane));
    use(lanes, done, count);
    done += count;
  }
}

template <int bits, bool deep, class U, class T>
void stochastic_loop(const T *x, T *out, size_t begin, size_t end, const Core<U> p,
                     const fpemu_key key) {
  with_lanes<bits>(key, begin, end, [&](const auto *lanes, size_t first, size_t count) {
    for (size_t i = 0; i < count; ++i)
      out[first + i] = static_cast<T>(
          round_stochastic<U, deep>(static_cast<U>(x[first + i]), lanes[i], bits, p));
  });
}

template <int bits, bool deep, class T>
void stochastic_a_loop(const T *x, T *out, size_t begin, size_t end, const Core<uint32_t> p,
                       const fpemu_key key) {
  with_lanes<bits>(key, begin, end, [&, p](const auto *lanes, size_t first, size_t count) {
    const T *from = x + first;
    T *to = out + first;
    for (size_t i = 0; i < count; ++i)
      to[i] = static_cast<T>(round_stochastic_a<deep>(from[i], lanes[i], bits, p));
  });
}

template <int bits>
void plain_loop(const uint32_t *x, uint32_t *out, size_t begin, size_t end, const Plain p,
                const fpemu_key key) {
  with_lanes<bits>(key, begin, end, [&, p](const auto *lanes, size_t first, size_t count) {
    const uint32_t *from = x + first;
    uint32_t *to = out + first;
    for (size_t i = 0; i < count; ++i) to[i] = round_stochastic_plain(from[i], lanes[i], bits, p);
  });
}

// One lane width: the fastest loop that is right.
template <int bits, class U, class T>
void stochastic_all(const T *x, T *out, size_t begin, size_t end, const Core<U> &core,
                    const fpemu_params &p, const fpemu_key &key) {
  if constexpr (sizeof(U) == 4) {
    if constexpr (sizeof(T) == 4) {
      if (is_plain(p)) return plain_loop<bits>(x, out, begin, end, Plain(p), key);
    }
    if (core.variant == 0) {
      return core.deep ? stochastic_a_loop<bits, true>(x, out, begin, end, core, key)
                       : stochastic_a_loop<bits, false>(x, out, begin, end, core, key);
    }
  }
  return core.deep ? stochastic_loop<bits, true>(x, out, begin, end, core, key)
                   : stochastic_loop<bits, false>(x, out, begin, end, core, key);
}

template <class U, class T>
int round_all(const T *x, T *out, size_t n, const fpemu_params &p, const fpemu_key *key,
              int threads) {
  const Core<U> core(p);
  if (p.random_bits) {
    if (!key || (p.lane_bits != 8 && p.lane_bits != 16 && p.lane_bits != 32)) {
      return FPEMU_BAD_ARGUMENT;
    }
    share(n, threads, [&](size_t begin, size_t end) {
      switch (p.lane_bits) {
        case 8: return stochastic_all<8>(x, out, begin, end, core, p, *key);
        case 16: return stochastic_all<16>(x, out, begin, end, core, p, *key);
        case 32: return stochastic_all<32>(x, out, begin, end, core, p, *key);
      }
    });
    return 0;
  }
  share(n, threads, [&](size_t begin, size_t end) {
    const T *from = x + begin;
    T *to = out + begin;
    const size_t count = end - begin;
    if (by_addition(p)) return nearest_by_addition<T>(from, to, count, p);
    if (core.deep) {
      round_loop<true>(from, to, count, core);
    } else {
      round_loop<false>(from, to, count, core);
    }
  });
  return 0;
}

template <class T, class C>
void encode_all(const T *x, C *codes, size_t n, const fpemu_params &p, int threads) {
  const Core<uint64_t> core(p);
  share(n, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      codes[i] = static_cast<C>(core.deep ? encode_pattern<true>(x[i], core, p)
                                          : encode_pattern<false>(x[i], core, p));
  });
}

template <class T, class C>
void decode_all(const C *codes, T *out, size_t n, const fpemu_params &p, int threads) {
  share(n, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) out[i] = static_cast<T>(decode_code(codes[i], p));
  });
}

// call(pattern type, code type) with null pointers that carry the types
template <class Call> int by_types(uint64_t width, int code_bytes, const Call &call) {
  const auto with_codes = [&](auto *pattern) {
    switch (code_bytes) {
      case 1: call(pattern, static_cast<uint8_t *>(nullptr)); return 0;
      case 2: call(pattern, static_cast<uint16_t *>(nullptr)); return 0;
      case 4: call(pattern, static_cast<uint32_t *>(nullptr)); return 0;
      case 8: call(pattern, static_cast<uint64_t *>(nullptr)); return 0;
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

template <class F>
void add_noise_all(const F *w, F *out, const F *delta, size_t n, uint32_t noise,
                   const float *table, const fpemu_key &key, int threads) {
  share(n, threads, [&](size_t begin, size_t end) {
    with_lanes<16>(key, begin, end, [&](const uint16_t *lanes, size_t first, size_t count) {
      for (size_t i = 0; i < count; ++i)
        out[first + i] =
            noisy(w[first + i], noise_value(lanes[i], noise, table), delta[first + i]);
    });
  });
}

}  // namespace

// The functions of abi.h, in a table of this instruction set.
namespace {

int host_round(const void *x, void *out, size_t n, const fpemu_params *p,
                     const fpemu_key *key, int threads) {
  switch (p->width) {
    case 16:
      return round_all<uint32_t>(static_cast<const uint16_t *>(x), static_cast<uint16_t *>(out), n,
                                 *p, key, threads);
    case 32:
      return round_all<uint32_t>(static_cast<const uint32_t *>(x), static_cast<uint32_t *>(out), n,
                                 *p, key, threads);
    case 64:
      return round_all<uint64_t>(static_cast<const uint64_t *>(x), static_cast<uint64_t *>(out), n,
                                 *p, key, threads);
  }
  return FPEMU_BAD_ARGUMENT;
}

int host_encode(const void *x, void *codes, size_t n, int code_bytes, const fpemu_params *p,
                      int threads) {
  return by_types(p->width, code_bytes, [&](auto *pattern, auto *code) {
    using T = std::remove_pointer_t<decltype(pattern)>;
    using C = std::remove_pointer_t<decltype(code)>;
    encode_all(static_cast<const T *>(x), static_cast<C *>(codes), n, *p, threads);
  });
}

int host_decode(const void *codes, void *out, size_t n, int code_bytes,
                      const fpemu_params *p, int threads) {
  return by_types(p->width, code_bytes, [&](auto *pattern, auto *code) {
    using T = std::remove_pointer_t<decltype(pattern)>;
    using C = std::remove_pointer_t<decltype(code)>;
    decode_all(static_cast<const C *>(codes), static_cast<T *>(out), n, *p, threads);
  });
}

int host_lanes(void *out, size_t n, int lane_bits, const fpemu_key *key, int threads) {
  const auto fill = [&](auto bits, auto *lanes) {
    share(n, threads, [&](size_t begin, size_t end) {
      with_lanes<decltype(bits)::value>(
          *key, begin, end, [&](const auto *drawn, size_t first, size_t count) {
            memcpy(lanes + first, drawn, count * sizeof *lanes);
          });
    });
    return 0;
  };
  switch (lane_bits) {
    case 8: return fill(std::integral_constant<int, 8>{}, static_cast<uint8_t *>(out));
    case 16: return fill(std::integral_constant<int, 16>{}, static_cast<uint16_t *>(out));
    case 32: return fill(std::integral_constant<int, 32>{}, static_cast<uint32_t *>(out));
  }
  return FPEMU_BAD_ARGUMENT;
}

int host_add_noise(const void *w, void *out, const void *delta, size_t n, int width,
                         int noise, const float *table, const fpemu_key *key, int threads) {
  if (noise < 0 || noise > 2 || (noise == GAUSSIAN && !table)) return FPEMU_BAD_ARGUMENT;
  if (width == 32) {
    add_noise_all(static_cast<const float *>(w), static_cast<float *>(out),
                  static_cast<const float *>(delta), n, noise, table, *key, threads);
  } else if (width == 64) {
    add_noise_all(static_cast<const double *>(w), static_cast<double *>(out),
                  static_cast<const double *>(delta), n, noise, table, *key, threads);
  } else {
    return FPEMU_BAD_ARGUMENT;
  }
  return 0;
}

}  // namespace

const HostTable FPEMU_TABLE = {host_round, host_encode, host_decode, host_lanes, host_add_noise};
