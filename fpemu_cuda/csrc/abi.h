/* The whole C interface. Pointers are to host memory in fpemu_host_*, to memory of the current
 * device in fpemu_cuda_*. Nothing allocates, synchronises or keeps state. Sizes are elements.
 * Results: 0, a CUDA error code, or FPEMU_BAD_ARGUMENT. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fpemu/params.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FPEMU_ABI_VERSION 1
#define FPEMU_BAD_ARGUMENT (-1)

#if defined(_WIN32)
#define FPEMU_API __declspec(dllexport)
#else
#define FPEMU_API __attribute__((visibility("default")))
#endif

FPEMU_API int fpemu_abi_version(void);
FPEMU_API size_t fpemu_params_size(void);
FPEMU_API size_t fpemu_key_size(void);
/* The offset of field `name` in fpemu_params or fpemu_key; (size_t)-1 for an unknown name. */
FPEMU_API size_t fpemu_params_offset(const char *name);
FPEMU_API size_t fpemu_key_offset(const char *name);
FPEMU_API int fpemu_has_cuda(void);
FPEMU_API int fpemu_has_openmp(void);
/* The instruction set that host calls use here: avx512, avx2 or baseline. */
FPEMU_API const char *fpemu_host_isa(void);

/* Patterns of p->width bits to patterns; `key` for stochastic modes. */
FPEMU_API int fpemu_host_round(const void *x, void *out, size_t n, const fpemu_params *p,
                     const fpemu_key *key, int threads);
/* Patterns of members to codes of `code_bytes` bytes, and back. */
FPEMU_API int fpemu_host_encode(const void *x, void *codes, size_t n, int code_bytes, const fpemu_params *p,
                      int threads);
FPEMU_API int fpemu_host_decode(const void *codes, void *out, size_t n, int code_bytes,
                      const fpemu_params *p, int threads);
/* Raw lanes of 8, 16 or 32 bits. */
FPEMU_API int fpemu_host_lanes(void *out, size_t n, int lane_bits, const fpemu_key *key, int threads);
/* out = w + R * delta in float32 (width 32) or float64 (width 64); noise as in fpemu::Noise. */
FPEMU_API int fpemu_host_add_noise(const void *w, void *out, const void *delta, size_t n, int width,
                         int noise, const float *table, const fpemu_key *key, int threads);

/* The same on device memory and a stream (cudaStream_t), where the library was built with CUDA. */
FPEMU_API int fpemu_cuda_round(const void *x, void *out, size_t n, const fpemu_params *p,
                     const fpemu_key *key, void *stream);
FPEMU_API int fpemu_cuda_encode(const void *x, void *codes, size_t n, int code_bytes, const fpemu_params *p,
                      void *stream);
FPEMU_API int fpemu_cuda_decode(const void *codes, void *out, size_t n, int code_bytes,
                      const fpemu_params *p, void *stream);
FPEMU_API int fpemu_cuda_lanes(void *out, size_t n, int lane_bits, const fpemu_key *key, void *stream);
FPEMU_API int fpemu_cuda_add_noise(const void *w, void *out, const void *delta, size_t n, int width,
                         int noise, const float *table, const fpemu_key *key, void *stream);
FPEMU_API const char *fpemu_cuda_error_name(int status);
FPEMU_API int fpemu_cuda_device_count(void);

#ifdef __cplusplus
}
#endif
