// The host functions of one instruction set; see abi.h for what they do.
#pragma once

#include "abi.h"

struct HostTable {
  int (*round)(const void *, void *, size_t, const fpemu_params *, const fpemu_key *, int);
  int (*encode)(const void *, void *, size_t, int, const fpemu_params *, int);
  int (*decode)(const void *, void *, size_t, int, const fpemu_params *, int);
  int (*lanes)(void *, size_t, int, const fpemu_key *, int);
  int (*add_noise)(const void *, void *, const void *, size_t, int, int, const float *,
                   const fpemu_key *, int);
};

extern const HostTable fpemu_host_baseline;
#if defined(FPEMU_X86)
extern const HostTable fpemu_host_avx2;
extern const HostTable fpemu_host_avx512;
#endif
