// Fused upsampling and cross-entropy on the CPU: loss and gradient in one pass over tiles (upsample_cpu.h).
//
// For each row of a tile: blend two widened rows and take the maximum; exponentials and their sum; then the gradient
// softmax - onehot, added to one gradient for each of the two widened rows. At the end of a tile these two are summed
// along x into the low-resolution columns. Each strip owns one row in each of two planes (what it gives to its upper
// and to its lower low-resolution row); the planes are added shifted at the end. So nothing is shared between threads,
// and every sum has a fixed order whatever their number: the result is the same bit for bit from run to run.
#include "cross_entropy.h"

#include "upsample_cpu.h"
#include "vector_math.h"

namespace iidm {
namespace {

// The state of a row of a tile. `value` holds the blended logits, then their exponentials.
struct Row {
  int32_t truth[kTile];
  float factor[kTile], largest[kTile], at_truth[kTile], sum[kTile];
  float loss[kTile];  // summed over the rows of the tile
};

IIDM_CLONES void forward(const float* upper, const float* lower, const Tap& tap, int classes, float* value, Row& row) {
  const float a = tap.weight_first, b = tap.weight_second;
  for (int x = 0; x < kTile; ++x) {
    row.largest[x] = blend(upper[x], lower[x], a, b);
    row.at_truth[x] = 0.0f;
    row.sum[x] = 0.0f;
  }
  for (int k = 0; k < classes; ++k) {
    const float* u = upper + k * kTile;
    const float* l = lower + k * kTile;
    float* v = value + k * kTile;
    for (int x = 0; x < kTile; ++x) {
      const float logit = blend(u[x], l[x], a, b);
      v[x] = logit;
      row.largest[x] = logit > row.largest[x] ? logit : row.largest[x];
      row.at_truth[x] = row.truth[x] == k ? logit : row.at_truth[x];
    }
  }
  for (int k = 0; k < classes; ++k) {
    float* v = value + k * kTile;
    for (int x = 0; x < kTile; ++x) {
      v[x] = exp_negative(v[x] - row.largest[x]);
      row.sum[x] += v[x];
    }
  }
  for (int x = 0; x < kTile; ++x) {
    const float nll = log_above_one(row.sum[x]) + (row.largest[x] - row.at_truth[x]);
    row.loss[x] += row.factor[x] * nll;
  }
}

IIDM_CLONES void backward(const float* value, const Tap& tap, int classes, Row& row, float* to_upper, float* to_lower) {
  const float a = tap.weight_first, b = tap.weight_second;
  float* scale = row.sum;  // the sum is not needed any more
  for (int x = 0; x < kTile; ++x) scale[x] = row.factor[x] / row.sum[x];
  for (int k = 0; k < classes; ++k) {
    const float* v = value + k * kTile;
    float* u = to_upper + k * kTile;
    float* l = to_lower + k * kTile;
    for (int x = 0; x < kTile; ++x) {
      const float g = v[x] * scale[x] - (row.truth[x] == k ? row.factor[x] : 0.0f);
      u[x] += g * a;
      l[x] += g * b;
    }
  }
}

// Adds a widened gradient to the low-resolution columns: the transpose of `widen`. Pixels between the same two
// columns are summed in registers first.
void narrow(const float* wide, int64_t plane, int classes, const UpsamplePlan& plan, int begin, int count, float* low) {
  const int32_t* first = plan.first.data() + begin;
  const int32_t* second = plan.second.data() + begin;
  const float* weight_first = plan.weight_first.data() + begin;
  const float* weight_second = plan.weight_second.data() + begin;
  for (int x = 0; x < count;) {
    int end = x + 1;
    while (end < count && first[end] == first[x]) ++end;
    for (int k = 0; k < classes; ++k) {
      const float* g = wide + k * kTile;
      float sum_first = 0.0f, sum_second = 0.0f;
      for (int i = x; i < end; ++i) {
        sum_first += g[i] * weight_first[i];
        sum_second += g[i] * weight_second[i];
      }
      low[k * plane + first[x]] += sum_first;
      low[k * plane + second[x]] += sum_second;
    }
    x = end;
  }
}

// Factor of each label id, with the image's weight; 0 for the ids that have no class.
void factors_by_label(const PixelWeights& weights, int classes, float image_weight, float* table) {
  for (int id = 0; id < 256; ++id) {
    table[id] = id >= classes ? 0.0f : image_weight * (weights.class_weight ? weights.class_weight[id] : 1.0f);
  }
}

struct StripResult {
  double loss = 0.0;
  int64_t valid = 0;
  int wrong = -1;
};

// One thread's work: everything about a tile.
class Accumulator {
 public:
  Accumulator(const uint8_t* label, const PixelWeights& weights, const UpsampledShape& shape, const UpsamplePlan& plan,
              StripResult* results, float* to_upper, float* to_lower)
      : label_(label),
        weights_(weights),
        shape_(shape),
        plan_(plan),
        results_(results),
        planes_{to_upper, to_lower},
        size_(static_cast<int64_t>(shape.classes) * kTile),
        buffers_(3 * size_) {}

  void operator()(const Tile& t) {
    const UpsampledShape& s = shape_;
    StripResult& result = results_[t.image * s.in_h + t.strip];
    float *value = buffers_.data(), *to_upper = value + size_, *to_lower = to_upper + size_;
    const bool with_grad = planes_[0] != nullptr;
    if (with_grad) std::fill(to_upper, to_lower + size_, 0.0f);
    const bool by_image = weights_.weight != nullptr && !weights_.per_pixel;
    float table[256];
    factors_by_label(weights_, s.classes, by_image ? weights_.weight[t.image] : 1.0f, table);
    Row row;
    std::fill(row.loss, row.loss + kTile, 0.0f);
    for (int y = t.row; y < t.row_end; ++y) {
      const int64_t pixel = (static_cast<int64_t>(t.image) * s.out_h + y) * s.out_w + t.column;
      load_labels(label_ + pixel, t.columns, row.truth);
      for (int x = 0; x < kTile; ++x) {
        const int id = row.truth[x];
        row.factor[x] = table[id];
        result.valid += id != kIgnored;
        if (id >= s.classes && id != kIgnored) result.wrong = std::max(result.wrong, id);
      }
      if (weights_.per_pixel) {
        // Selected, not multiplied: a weight of inf or NaN on an ignored pixel must stay without effect.
        const float* weight = weights_.weight + pixel;
        for (int x = 0; x < t.columns; ++x) row.factor[x] = row.truth[x] < s.classes ? row.factor[x] * weight[x] : 0.0f;
      }
      forward(t.upper, t.lower, plan_.rows[y], s.classes, value, row);
      if (with_grad) backward(value, plan_.rows[y], s.classes, row, to_upper, to_lower);
    }
    for (int x = 0; x < kTile; ++x) result.loss += row.loss[x];
    if (!with_grad) return;
    const int64_t plane = static_cast<int64_t>(s.in_h) * s.in_w;
    const int64_t line = t.image * s.classes * plane + static_cast<int64_t>(t.strip) * s.in_w;
    narrow(to_upper, plane, s.classes, plan_, t.column, t.columns, planes_[0] + line);
    narrow(to_lower, plane, s.classes, plan_, t.column, t.columns, planes_[1] + line);
  }

 private:
  const uint8_t* label_;
  const PixelWeights& weights_;
  const UpsampledShape& shape_;
  const UpsamplePlan& plan_;
  StripResult* results_;  // [B,h]
  float* planes_[2];      // [B,K,h,w]: what a strip gives to its upper row, and to its lower one
  int64_t size_;
  std::vector<float> buffers_;
};

}  // namespace

int cross_entropy_cpu(const float* logits, const uint8_t* label, const PixelWeights& weights, Normalizer normalizer,
                      const UpsampledShape& s, float* loss, float* grad, float* scratch) {
  const UpsamplePlan plan(s);
  const int64_t plane = static_cast<int64_t>(s.in_h) * s.in_w;
  const int planes = s.batch * s.classes;
  std::vector<StripResult> results(static_cast<size_t>(s.batch) * s.in_h);
  if (grad != nullptr) {
    std::fill(grad, grad + planes * plane, 0.0f);
    std::fill(scratch, scratch + planes * plane, 0.0f);
  }
  visit_tiles(logits, s, plan, [&] { return Accumulator(label, weights, s, plan, results.data(), grad, scratch); });
  StripResult total;
  for (const StripResult& part : results) {
    total.loss += part.loss;
    total.valid += part.valid;
    total.wrong = std::max(total.wrong, part.wrong);
  }
  double divisor = 1.0;
  if (normalizer == Normalizer::kPixels) divisor = static_cast<double>(s.batch) * s.out_h * s.out_w;
  if (normalizer == Normalizer::kValid) divisor = static_cast<double>(std::max<int64_t>(total.valid, 1));
  *loss = static_cast<float>(total.loss / divisor);
  if (grad == nullptr) return total.wrong;
  const float scale = static_cast<float>(1.0 / divisor);
  // From the last row up: row r takes what strip r - 1 gave to its lower row; the last strip's lower row is its own.
#pragma omp parallel for if (planes > 64)
  for (int p = 0; p < planes; ++p) {
    float* g = grad + p * plane;
    const float* from_above = scratch + p * plane;
    for (int r = s.in_h - 1; r >= 0; --r) {
      float* line = g + static_cast<int64_t>(r) * s.in_w;
      const float* own = from_above + static_cast<int64_t>(r) * s.in_w;
      for (int x = 0; x < s.in_w; ++x) {
        float value = line[x];
        if (r == s.in_h - 1) value += own[x];
        if (r > 0) value += own[x - s.in_w];
        line[x] = value * scale;
      }
    }
  }
  return total.wrong;
}

}  // namespace iidm
