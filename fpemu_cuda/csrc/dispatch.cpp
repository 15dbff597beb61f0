// The host functions for the processor at hand.
#include "host_table.h"

namespace {

const HostTable &table() {
#if defined(FPEMU_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return fpemu_host_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fpemu_host_avx2;
#endif
  return fpemu_host_baseline;
}

}  // namespace

extern "C" {

int fpemu_host_round(const void *x, void *out, size_t n, const fpemu_params *p,
                     const fpemu_key *key, int threads) {
  return table().round(x, out, n, p, key, threads);
}

int fpemu_host_encode(const void *x, void *codes, size_t n, int code_bytes, const fpemu_params *p,
                      int threads) {
  return table().encode(x, codes, n, code_bytes, p, threads);
}

int fpemu_host_decode(const void *codes, void *out, size_t n, int code_bytes,
                      const fpemu_params *p, int threads) {
  return table().decode(codes, out, n, code_bytes, p, threads);
}

int fpemu_host_lanes(void *out, size_t n, int lane_bits, const fpemu_key *key, int threads) {
  return table().lanes(out, n, lane_bits, key, threads);
}

int fpemu_host_add_noise(const void *w, void *out, const void *delta, size_t n, int width,
                         int noise, const float *noises, const fpemu_key *key, int threads) {
  return table().add_noise(w, out, delta, n, width, noise, noises, key, threads);
}

const char *fpemu_host_isa(void) {
#if defined(FPEMU_X86)
  if (&table() == &fpemu_host_avx512) return "avx512";
  if (&table() == &fpemu_host_avx2) return "avx2";
#endif
  return "baseline";
}

}  // extern "C"
