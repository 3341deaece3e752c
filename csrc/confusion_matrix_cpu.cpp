// Confusion matrix on the CPU, tile by tile (upsample_cpu.h); each thread counts on its own and adds at the end.
#include "confusion_matrix.h"

#include "upsample_cpu.h"

namespace iidm {
namespace {

struct Row {
  float largest[kTile];
  int32_t index[kTile];
};

// The class of the largest logit, the lowest among equals.
IIDM_CLONES void classify(const float* upper, const float* lower, const Tap& tap, int classes, Row& row) {
  const float a = tap.weight_first, b = tap.weight_second;
  for (int x = 0; x < kTile; ++x) {
    row.largest[x] = blend(upper[x], lower[x], a, b);
    row.index[x] = 0;
  }
  for (int k = 1; k < classes; ++k) {
    const float* u = upper + k * kTile;
    const float* l = lower + k * kTile;
    for (int x = 0; x < kTile; ++x) {
      const float logit = blend(u[x], l[x], a, b);
      const bool more = logit > row.largest[x];
      row.largest[x] = more ? logit : row.largest[x];
      row.index[x] = more ? k : row.index[x];
    }
  }
}

class Counter {
 public:
  Counter(const uint8_t* label, const UpsampledShape& shape, const UpsamplePlan& plan, int64_t* counts)
      : label_(label), shape_(shape), plan_(plan), counts_(counts), own_(shape.classes * shape.classes + 1, 0) {}
  ~Counter() {
#pragma omp critical(iidm_confusion_matrix)
    for (size_t i = 0; i < own_.size(); ++i) counts_[i] += own_[i];
  }
  Counter(const Counter&) = delete;

  void operator()(const Tile& t) {
    Row row;
    for (int y = t.row; y < t.row_end; ++y) {
      classify(t.upper, t.lower, plan_.rows[y], shape_.classes, row);
      const uint8_t* truth = label_ + (static_cast<int64_t>(t.image) * shape_.out_h + y) * shape_.out_w + t.column;
      for (int x = 0; x < t.columns; ++x) {
        const int slot = count_slot(truth[x], row.index[x], shape_.classes);
        if (slot >= 0) ++own_[slot];
      }
    }
  }

 private:
  const uint8_t* label_;
  const UpsampledShape& shape_;
  const UpsamplePlan& plan_;
  int64_t* counts_;
  std::vector<int64_t> own_;  // this thread's; added to `counts_` at its end
};

}  // namespace

void confusion_matrix_cpu(const float* logits, const uint8_t* label, int64_t* counts, const UpsampledShape& shape) {
  const UpsamplePlan plan(shape);
  visit_tiles(logits, shape, plan, [&] { return Counter(label, shape, plan, counts); });
}

}  // namespace iidm
