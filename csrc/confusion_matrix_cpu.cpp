// Confusion matrix on the CPU.
//
// Version 1: one output row at a time. A low-resolution row is widened to full width once (K x W floats, stays in
// cache) and serves all output rows between its neighbours; blending two widened rows, the maximum and the index run
// over x and vectorise. Full-resolution logits never exist; threads own bands of rows and add their counts at the end.
#include "confusion_matrix.h"

#include <algorithm>
#include <vector>

// A wheel runs on any x86-64; the inner loops are compiled for the wider registers as well and chosen at load time.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define IIDM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define IIDM_CLONES
#endif

namespace iidm {
namespace {

// wide[k][x] for one low-resolution row. low: [K] rows of in_w floats, `plane` floats apart.
IIDM_CLONES void widen(const float* low, int64_t plane, const UpsampledShape& s, const Tap* columns, float* wide) {
  for (int k = 0; k < s.classes; ++k) {
    const float* row = low + k * plane;
    float* out = wide + static_cast<int64_t>(k) * s.out_w;
    for (int x = 0; x < s.out_w; ++x) {
      const Tap& c = columns[x];
      out[x] = blend(row[c.first], row[c.second], c.weight_first, c.weight_second);
    }
  }
}

// index[x] = class of the largest value, the lowest among equals.
IIDM_CLONES void largest(const float* upper, const float* lower, const Tap& tap, int classes, int width, float* best,
                         int32_t* index) {
  const float a = tap.weight_first, b = tap.weight_second;
  for (int x = 0; x < width; ++x) {
    best[x] = blend(upper[x], lower[x], a, b);
    index[x] = 0;
  }
  for (int k = 1; k < classes; ++k) {
    const float* u = upper + static_cast<int64_t>(k) * width;
    const float* l = lower + static_cast<int64_t>(k) * width;
    for (int x = 0; x < width; ++x) {
      const float value = blend(u[x], l[x], a, b);
      const bool more = value > best[x];
      best[x] = more ? value : best[x];
      index[x] = more ? k : index[x];
    }
  }
}

// Two widened rows, each remembered with the low-resolution row it came from.
class WideRows {
 public:
  WideRows(const UpsampledShape& shape, const Tap* columns)
      : shape_(shape), columns_(columns), size_(static_cast<int64_t>(shape.classes) * shape.out_w), data_(2 * size_) {}

  const float* get(const float* image, int64_t key, int row) {
    const int slot = row & 1;  // neighbouring rows never share a slot
    float* out = data_.data() + slot * size_;
    if (key_[slot] != key) {
      const int64_t plane = static_cast<int64_t>(shape_.in_h) * shape_.in_w;
      widen(image + static_cast<int64_t>(row) * shape_.in_w, plane, shape_, columns_, out);
      key_[slot] = key;
    }
    return out;
  }

 private:
  const UpsampledShape& shape_;
  const Tap* columns_;
  int64_t size_;
  std::vector<float> data_;
  int64_t key_[2] = {-1, -1};
};

void count_rows(const float* logits, const uint8_t* label, const UpsampledShape& s, const Tap* columns, int64_t begin,
                int64_t end, int64_t* counts) {
  WideRows rows(s, columns);
  std::vector<float> best(s.out_w);
  std::vector<int32_t> index(s.out_w);
  const float scale = source_scale(s.in_h, s.out_h, s.align_corners);
  const int64_t image_size = static_cast<int64_t>(s.classes) * s.in_h * s.in_w;
  for (int64_t line = begin; line < end; ++line) {
    const int64_t image = line / s.out_h;
    const Tap tap = source_tap(static_cast<int>(line % s.out_h), s.in_h, scale, s.align_corners);
    const float* low = logits + image * image_size;
    const float* upper = rows.get(low, image * s.in_h + tap.first, tap.first);
    const float* lower = rows.get(low, image * s.in_h + tap.second, tap.second);
    largest(upper, lower, tap, s.classes, s.out_w, best.data(), index.data());
    const uint8_t* truth = label + line * s.out_w;
    for (int x = 0; x < s.out_w; ++x) {
      const int slot = count_slot(truth[x], index[x], s.classes);
      if (slot >= 0) ++counts[slot];
    }
  }
}

}  // namespace

void confusion_matrix_cpu(const float* logits, const uint8_t* label, int64_t* counts, const UpsampledShape& shape) {
  std::vector<Tap> columns(shape.out_w);
  const float scale = source_scale(shape.in_w, shape.out_w, shape.align_corners);
  for (int x = 0; x < shape.out_w; ++x) columns[x] = source_tap(x, shape.in_w, scale, shape.align_corners);

  const int64_t lines = static_cast<int64_t>(shape.batch) * shape.out_h;
  const int64_t band = 32;
  const int64_t bands = (lines + band - 1) / band;
  const int64_t slots = static_cast<int64_t>(shape.classes) * shape.classes + 1;
#pragma omp parallel if (bands > 1)
  {
    std::vector<int64_t> own(slots, 0);
#pragma omp for schedule(dynamic) nowait
    for (int64_t i = 0; i < bands; ++i) {
      count_rows(logits, label, shape, columns.data(), i * band, std::min(lines, (i + 1) * band), own.data());
    }
#pragma omp critical(iidm_confusion_matrix)
    for (int64_t i = 0; i < slots; ++i) counts[i] += own[i];
  }
}

}  // namespace iidm
