// Pseudo-labels on the CPU, tile by tile (upsample_cpu.h). The largest softmax value is exp(0) over the sum of the
// exponentials shifted by the largest logit, so nothing but the sum is kept.
#include "pseudo_label.h"

#include "upsample_cpu.h"
#include "vector_math.h"

namespace iidm {
namespace {

struct Row {
  float largest[kTile], confidence[kTile];
  int32_t index[kTile];
  uint8_t label[kTile];
};

IIDM_CLONES int count_confident(const float* confidence, int count, float threshold, bool inclusive) {
  int more = 0, equal = 0;
  for (int x = 0; x < count; ++x) {
    more += confidence[x] > threshold;
    equal += confidence[x] == threshold;
  }
  return inclusive ? more + equal : more;
}

IIDM_CLONES void classify(const float* upper, const float* lower, const Tap& tap, int classes, float* value, Row& row) {
  const float a = tap.weight_first, b = tap.weight_second;
  for (int x = 0; x < kTile; ++x) {
    row.largest[x] = blend(upper[x], lower[x], a, b);
    row.index[x] = 0;
    row.confidence[x] = 0.0f;
  }
  for (int k = 0; k < classes; ++k) {
    const float* u = upper + k * kTile;
    const float* l = lower + k * kTile;
    float* v = value + k * kTile;
    for (int x = 0; x < kTile; ++x) {
      const float logit = blend(u[x], l[x], a, b);
      const bool more = logit > row.largest[x];
      v[x] = logit;
      row.largest[x] = more ? logit : row.largest[x];
      row.index[x] = more ? k : row.index[x];
    }
  }
  for (int k = 0; k < classes; ++k) {
    const float* v = value + k * kTile;
    for (int x = 0; x < kTile; ++x) row.confidence[x] += exp_negative(v[x] - row.largest[x]);
  }
  for (int x = 0; x < kTile; ++x) {
    row.confidence[x] = 1.0f / row.confidence[x];
    row.label[x] = static_cast<uint8_t>(row.index[x]);
  }
}

}  // namespace

void pseudo_label_cpu(const float* logits, const UpsampledShape& s, float threshold, bool inclusive, uint8_t* label,
                      int64_t* confident, float* confidence) {
  const UpsamplePlan plan(s);
  std::vector<int64_t> counts(static_cast<size_t>(s.batch) * s.in_h, 0);  // by strip
  visit_tiles(logits, s, plan, [&] {
    return [&, value = std::vector<float>(static_cast<size_t>(s.classes) * kTile)](const Tile& t) mutable {
      Row row;
      for (int y = t.row; y < t.row_end; ++y) {
        classify(t.upper, t.lower, plan.rows[y], s.classes, value.data(), row);
        const int64_t pixel = (static_cast<int64_t>(t.image) * s.out_h + y) * s.out_w + t.column;
        std::copy(row.label, row.label + t.columns, label + pixel);
        if (confidence != nullptr) std::copy(row.confidence, row.confidence + t.columns, confidence + pixel);
        counts[t.image * s.in_h + t.strip] += count_confident(row.confidence, t.columns, threshold, inclusive);
      }
    };
  });
  for (size_t i = 0; i < counts.size(); ++i) confident[i / s.in_h] += counts[i];
}

}  // namespace iidm
