// What the loader checks before the first call: version, and the layout of the records.
#include "abi.h"

namespace {

struct Field {
  const char *name;
  size_t offset;
};

#define FIELD(record, name) {#name, offsetof(record, name)}
constexpr Field kParams[] = {
    FIELD(fpemu_params, width),        FIELD(fpemu_params, mc),
    FIELD(fpemu_params, sign),         FIELD(fpemu_params, infinity),
    FIELD(fpemu_params, keep),         FIELD(fpemu_params, mode_pos),
    FIELD(fpemu_params, mode_neg),     FIELD(fpemu_params, random_bits),
    FIELD(fpemu_params, lane_bits),    FIELD(fpemu_params, m),
    FIELD(fpemu_params, shift),        FIELD(fpemu_params, emin_field),
    FIELD(fpemu_params, quantum_field), FIELD(fpemu_params, emin_bits),
    FIELD(fpemu_params, quantum_bits), FIELD(fpemu_params, parity),
    FIELD(fpemu_params, deep),         FIELD(fpemu_params, floor_bits),
    FIELD(fpemu_params, max_pos),      FIELD(fpemu_params, max_neg),
    FIELD(fpemu_params, limit_pos),    FIELD(fpemu_params, limit_neg),
    FIELD(fpemu_params, over_pos),     FIELD(fpemu_params, over_neg),
    FIELD(fpemu_params, inf_pos),      FIELD(fpemu_params, inf_neg),
    FIELD(fpemu_params, nan),          FIELD(fpemu_params, zero_pos),
    FIELD(fpemu_params, zero_neg),     FIELD(fpemu_params, tiny_neg),
    FIELD(fpemu_params, code_bits),    FIELD(fpemu_params, code_sign),
    FIELD(fpemu_params, code_offset),  FIELD(fpemu_params, twos),
    FIELD(fpemu_params, code_inf),     FIELD(fpemu_params, code_nan),
    FIELD(fpemu_params, code_top),     FIELD(fpemu_params, flush),
};
constexpr Field kKey[] = {
    FIELD(fpemu_key, seed),       FIELD(fpemu_key, stream),     FIELD(fpemu_key, offset),
    FIELD(fpemu_key, row_length), FIELD(fpemu_key, row_stride), FIELD(fpemu_key, first),
};
#undef FIELD

bool same(const char *a, const char *b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

template <size_t n> size_t offset_of(const Field (&fields)[n], const char *name) {
  for (const Field &field : fields)
    if (same(field.name, name)) return field.offset;
  return static_cast<size_t>(-1);
}

}  // namespace

extern "C" {

int fpemu_abi_version(void) { return FPEMU_ABI_VERSION; }
size_t fpemu_params_size(void) { return sizeof(fpemu_params); }
size_t fpemu_key_size(void) { return sizeof(fpemu_key); }
size_t fpemu_params_offset(const char *name) { return offset_of(kParams, name); }
size_t fpemu_key_offset(const char *name) { return offset_of(kKey, name); }

int fpemu_has_cuda(void) {
#if defined(FPEMU_WITH_CUDA)
  return 1;
#else
  return 0;
#endif
}

int fpemu_has_openmp(void) {
#if defined(_OPENMP)
  return 1;
#else
  return 0;
#endif
}

}  // extern "C"
