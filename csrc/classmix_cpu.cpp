// ClassMix and the colour jitter on the CPU: 64 pixels at a time in three planes of floats that stay in L1, so each
// step of the jitter is a loop that vectorises; every byte of the images is read and written once.
#include "classmix.h"

#include <algorithm>
#include <vector>

#include "formats.h"

namespace iidm {
namespace {

constexpr int kRun = 64;

struct Pixels {
  float r[kRun], g[kRun], b[kRun];
};

template <class Step>
IIDM_HD void for_each(Pixels& p, Step step) {
  for (int x = 0; x < kRun; ++x) {
    const Rgb out = step(Rgb{p.r[x], p.g[x], p.b[x]});
    p.r[x] = out.r;
    p.g[x] = out.g;
    p.b[x] = out.b;
  }
}

// One function a step: each loop is then compiled for its registers.
IIDM_CLONES void brightness_run(Pixels& p, float value) {
  for_each(p, [value](const Rgb& x) __attribute__((always_inline)) { return brightness(x, value); });
}
IIDM_CLONES void contrast_run(Pixels& p, float value) {
  for_each(p, [value](const Rgb& x) __attribute__((always_inline)) { return contrast(x, value); });
}
IIDM_CLONES void saturation_run(Pixels& p, float value) {
  for_each(p, [value](const Rgb& x) __attribute__((always_inline)) { return saturation(x, value); });
}
IIDM_CLONES void hue_run(Pixels& p, float value) {
  for_each(p, [value](const Rgb& x) __attribute__((always_inline)) { return hue(x, value); });
}

IIDM_CLONES void load_run(const uint8_t* bytes, int count, Pixels& p) {
  for (int x = 0; x < count; ++x) {
    p.r[x] = unit_of(bytes[3 * x]);
    p.g[x] = unit_of(bytes[3 * x + 1]);
    p.b[x] = unit_of(bytes[3 * x + 2]);
  }
}

IIDM_CLONES void normalize_run(const Pixels& p, const Normalization& n, float* out) {
  for (int x = 0; x < kRun; ++x) {
    out[3 * x] = p.r[x] * n.scale[0] - n.shift[0];
    out[3 * x + 1] = p.g[x] * n.scale[1] - n.shift[1];
    out[3 * x + 2] = p.b[x] * n.scale[2] - n.shift[2];
  }
}

IIDM_CLONES void store_bfloat16(const float* values, int count, uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = to_bfloat16(values[i]);
}
IIDM_CLONES void store_float16(const float* values, int count, uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = to_float16(values[i]);
}

// `count` pixels from `bytes`, jittered and normalized, to pixel `at` of the output.
void color_run(const uint8_t* bytes, int count, const Jitter& jitter, const JitterArguments& a, int64_t at) {
  Pixels p;
  if (count < kRun) p = Pixels{};
  load_run(bytes, count, p);
  if (jitter.enabled) {
    for (const int step : jitter.order) {
      const float value = jitter.value[step];
      if (step == 0) brightness_run(p, value);
      if (step == 1) contrast_run(p, value);
      if (step == 2) saturation_run(p, value);
      if (step == 3) hue_run(p, value);
    }
  }
  float values[3 * kRun];
  normalize_run(p, a.normalization, values);
  if (a.format == Format::kFloat32) {
    std::copy(values, values + 3 * count, static_cast<float*>(a.out) + 3 * at);
  } else if (a.format == Format::kBFloat16) {
    store_bfloat16(values, 3 * count, static_cast<uint16_t*>(a.out) + 3 * at);
  } else {
    store_float16(values, 3 * count, static_cast<uint16_t*>(a.out) + 3 * at);
  }
}

}  // namespace

void jitter_cpu(const JitterArguments& a) {
  const int64_t pixels = static_cast<int64_t>(a.height) * a.width;
  const int64_t runs = (pixels + kRun - 1) / kRun;
#pragma omp parallel for collapse(2) schedule(static) if (a.batch * runs > 16)
  for (int image = 0; image < a.batch; ++image) {
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t at = image * pixels + run * kRun;
      const int count = static_cast<int>(std::min<int64_t>(kRun, pixels - run * kRun));
      color_run(a.image + 3 * at, count, jitter_of(a.jitter, image), a, at);
    }
  }
}

void classmix_cpu(const ClassmixArguments& a) {
  const JitterArguments& c = a.common;
  const int64_t lines = static_cast<int64_t>(c.batch) * c.height;
#pragma omp parallel for schedule(static) if (lines * c.width > 1024)
  for (int64_t line = 0; line < lines; ++line) {
    const int image = static_cast<int>(line / c.height);
    const int y = static_cast<int>(line % c.height);
    const bool trusted = y >= a.margin_top && y < c.height - a.margin_bottom;
    const bool* selected = a.selected + static_cast<int64_t>(image) * kLabelValues;
    const Jitter jitter = jitter_of(c.jitter, image);
    for (int x0 = 0; x0 < c.width; x0 += kRun) {
      const int count = std::min(kRun, c.width - x0);
      const int64_t at = line * c.width + x0;
      uint8_t mixed[3 * kRun];
      for (int x = 0; x < count; ++x) {
        const int64_t i = at + x;
        const bool pasted = selected[a.label[i]];
        const uint8_t* from = (pasted ? c.image : a.base_image) + 3 * i;
        mixed[3 * x] = from[0];
        mixed[3 * x + 1] = from[1];
        mixed[3 * x + 2] = from[2];
        a.out_label[i] = pasted ? a.label[i] : a.base_label[i];
        const float base = a.base_weight[a.weight_per_pixel ? i : image];
        a.out_weight[i] = mixed_weight(pasted, base, trusted, a.has_pasted_weight, a.pasted_weight);
      }
      color_run(mixed, count, jitter, c, at);
    }
  }
}

void draw_classes_cpu(const DrawArguments& a) {
  std::vector<uint8_t> present(static_cast<size_t>(a.batch) * kLabelValues, 0);
#pragma omp parallel for schedule(static) if (a.batch > 1)
  for (int image = 0; image < a.batch; ++image) {
    const uint8_t* label = a.label + image * a.pixels;
    // Four tables: neighbours have the same label, and a store to one address waits for the one before.
    uint8_t seen[4][kLabelValues] = {};
    int64_t i = 0;
    for (; i + 4 <= a.pixels; i += 4) {
      for (int j = 0; j < 4; ++j) seen[j][label[i + j]] = 1;
    }
    for (; i < a.pixels; ++i) seen[0][label[i]] = 1;
    for (int v = 0; v < kLabelValues; ++v) {
      present[static_cast<size_t>(image) * kLabelValues + v] = seen[0][v] | seen[1][v] | seen[2][v] | seen[3][v];
    }
  }
  for (int image = 1; a.from_batch && image < a.batch; ++image) {
    for (int v = 0; v < kLabelValues; ++v) present[v] |= present[static_cast<size_t>(image) * kLabelValues + v];
  }
  for (int image = 0; image < a.batch; ++image) {
    uint8_t* here = present.data() + (a.from_batch ? 0 : static_cast<size_t>(image) * kLabelValues);
    if (!a.include_ignored) here[kIgnored] = 0;
    std::vector<int> values;
    for (int v = 0; v < kLabelValues; ++v) {
      if (here[v]) values.push_back(v);
    }
    const int count = static_cast<int>(values.size());
    const float* keys = a.keys + static_cast<int64_t>(image) * kLabelValues;
    // Equal keys: the lower value first.
    std::stable_sort(values.begin(), values.end(), [keys](int x, int y) { return keys[x] < keys[y]; });
    const int half = a.round_up ? (count + 1) / 2 : std::max(count / 2, std::min(count, 1));
    bool* out = a.selected + static_cast<int64_t>(image) * kLabelValues;
    std::fill(out, out + kLabelValues, false);
    for (int i = 0; i < half; ++i) out[values[i]] = true;
  }
}

}  // namespace iidm
