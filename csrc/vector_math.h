// exp and log that vectorise: a library call inside a loop does not. Tested through the ops.
#pragma once

#include "portable.h"

namespace iidm {

IIDM_HD int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

IIDM_HD float float_of(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// e^x for x <= 0; below -87 (where float32 becomes subnormal) e^-87. NaN stays NaN.
// Source: Cephes expf (S. Moshier): x = n ln2 + r, |r| <= ln2 / 2, polynomial in r.
IIDM_HD float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const int32_t exponent = static_cast<int32_t>(static_cast<uint32_t>(bits_of(shifted)) << 23);
  const uint32_t scaled = static_cast<uint32_t>(bits_of(p)) + static_cast<uint32_t>(exponent);
  const float result = float_of(static_cast<int32_t>(scaled));
  return x == x ? result : x;
}

// ln(x) for normal x >= 1 that is finite; NaN stays NaN. Source: Cephes logf.
IIDM_HD float log_above_one(float x) {
  const int32_t bits = bits_of(x);
  // Mantissa in [sqrt(1/2), sqrt(2)).
  const int32_t shifted = bits - 0x3f3504f3;
  const int32_t exponent = shifted >> 23;
  const float m = float_of((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
  const float e = static_cast<float>(exponent);
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float y = p * m * z + e * -2.12194440e-4f - 0.5f * z;
  y = m + y + e * 0.693359375f;
  return x == x ? y : x;
}

}  // namespace iidm
