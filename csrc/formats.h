// bfloat16 and float16 as bits, on the host, where not every compiler has the types: float32 is rounded to nearest even,
// NaN stays NaN.
#pragma once

#include "portable.h"

namespace iidm {

IIDM_HD uint16_t to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

IIDM_HD uint16_t to_float16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  // Below 2^-14 the result is subnormal: adding 0.5 shifts the mantissa into place and rounds it.
  float small;
  std::memcpy(&small, &bits, sizeof small);
  small += 0.5f;
  uint32_t small_bits;
  std::memcpy(&small_bits, &small, sizeof small_bits);
  const uint32_t subnormal = small_bits - 0x3f000000u;
  const uint32_t normal = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  uint32_t half = bits < 0x38800000u ? subnormal : normal;
  half = bits >= 0x477ff000u ? 0x7c00u : half;  // from 65520 on: infinity
  half = bits > 0x7f800000u ? 0x7e00u : half;   // NaN
  return static_cast<uint16_t>(sign | half);
}

IIDM_HD float from_bfloat16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

IIDM_HD float from_float16(uint16_t x) {
  const uint32_t magnitude = static_cast<uint32_t>(x & 0x7fffu) << 13;
  const uint32_t rebias = 0x77800000u;  // 2^112, as a factor: exponents move by 127 - 15
  float value, factor;
  std::memcpy(&value, &magnitude, sizeof value);
  std::memcpy(&factor, &rebias, sizeof factor);
  value *= factor;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : bits;  // infinity and NaN
  bits |= static_cast<uint32_t>(x & 0x8000u) << 16;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

IIDM_HD float load(float x) { return x; }
IIDM_HD float load(uint16_t x) { return from_bfloat16(x); }
IIDM_HD void store(float x, float* to) { *to = x; }
IIDM_HD void store(float x, uint16_t* to) { *to = to_bfloat16(x); }

}  // namespace iidm
