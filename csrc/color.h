// The colour jitter and the normalization of one pixel, the same for host and device: kornia 0.5.8's forms, as
// kernels/jitter/reference.py states them. Everything is branch-free, so the host's loops over pixels vectorise.
#pragma once

#include <cmath>

#include "portable.h"

namespace iidm {

constexpr float kColorEps = 1e-8f;  // added to V where S = C / V

struct Rgb {
  float r, g, b;  // 0..1
};

// (255 x - mean) / std as x * scale - shift.
struct Normalization {
  float scale[3], shift[3];
};

// The jitter of one image.
struct Jitter {
  bool enabled;
  float value[4];  // by step: 0 brightness, 1 contrast, 2 saturation, 3 hue
  int order[4];    // the step at each position
};

#ifdef __CUDA_ARCH__
// On a GPU: one instruction each, the clamp none (a modifier of the one that made x), the quotient two or three and
// exact to 2 ulp. Only a NaN factor makes a NaN pixel, which becomes 0 here.
IIDM_HD float smaller(float a, float b) { return fminf(a, b); }
IIDM_HD float larger(float a, float b) { return fmaxf(a, b); }
IIDM_HD float clamp_unit(float x) { return __saturatef(x); }
IIDM_HD float quotient(float a, float b) { return __fdividef(a, b); }
#else
IIDM_HD float smaller(float a, float b) { return b < a ? b : a; }
IIDM_HD float larger(float a, float b) { return b > a ? b : a; }
IIDM_HD float clamp_unit(float x) { return smaller(larger(x, 0.0f), 1.0f); }
IIDM_HD float quotient(float a, float b) { return a / b; }
#endif

// x / 255, for every byte rounded as the division rounds it, in two instructions instead of ten on a GPU.
constexpr float kUnitHigh = 0x1.010102p-8f, kUnitLow = -0x1.fdfdfep-33f;  // their sum is 1 / 255 to 2^-57
IIDM_HD float unit_of(uint8_t x) {
#ifdef __CUDA_ARCH__
  const float value = static_cast<float>(x);
  return fmaf(value, kUnitHigh, value * kUnitLow);
#else
  return static_cast<float>(x) / 255.0f;
#endif
}

IIDM_HD float largest_of(const Rgb& p) { return larger(larger(p.r, p.g), p.b); }
IIDM_HD float smallest_of(const Rgb& p) { return smaller(smaller(p.r, p.g), p.b); }

IIDM_HD Rgb brightness(const Rgb& p, float value) {
  return {clamp_unit(p.r + value), clamp_unit(p.g + value), clamp_unit(p.b + value)};
}

IIDM_HD Rgb contrast(const Rgb& p, float value) {
  return {clamp_unit(p.r * value), clamp_unit(p.g * value), clamp_unit(p.b * value)};
}

// With V = max and C = max - min a channel is V - C k(hue): scaling S by f scales C by min(f, V / C).
IIDM_HD Rgb saturation(const Rgb& p, float value) {
  const float v = largest_of(p);
  const float chroma = v - smallest_of(p);
  // A grey pixel has C = 0 and every distance from V is 0: the factor has no effect, it must only be finite.
  const float limit = chroma > 0.0f ? quotient(v + kColorEps, chroma > 0.0f ? chroma : 1.0f) : 1.0f;
  const float factor = smaller(limit, larger(value, 0.0f));
  return {clamp_unit(v - (v - p.r) * factor), clamp_unit(v - (v - p.g) * factor), clamp_unit(v - (v - p.b) * factor)};
}

IIDM_HD float hue_channel(float v, float chroma, float sextant, float phase) {
  const float turned = sextant + phase;
  const float k = turned - 6.0f * floorf(turned * (1.0f / 6.0f));
  return clamp_unit(v - chroma * clamp_unit(smaller(k, 4.0f - k)));
}

IIDM_HD Rgb hue(const Rgb& p, float value) {
  const float v = largest_of(p);
  const float chroma = v - smallest_of(p);
  const float inverse = quotient(1.0f, chroma == 0.0f ? 1.0f : chroma);
  const float if_red = (p.g - p.b) * inverse;
  const float if_green = 2.0f + (p.b - p.r) * inverse;
  const float if_blue = 4.0f + (p.r - p.g) * inverse;
  const float sextant = (p.r == v ? if_red : (p.g == v ? if_green : if_blue)) + 6.0f * value;
  return {hue_channel(v, chroma, sextant, 5.0f), hue_channel(v, chroma, sextant, 3.0f),
          hue_channel(v, chroma, sextant, 1.0f)};
}

IIDM_HD Rgb jitter_step(const Rgb& p, int step, float value) {
  switch (step) {
    case 0:
      return brightness(p, value);
    case 1:
      return contrast(p, value);
    case 2:
      return saturation(p, value);
    default:
      return hue(p, value);
  }
}

}  // namespace iidm
