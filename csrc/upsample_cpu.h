// Upsampled logits on the CPU, tile by tile.
//
// The output rows whose upper neighbour is one low-resolution row form a strip; 64 columns of a strip are a tile. Two
// widened rows of K x 64 floats (10 KB at 19 classes) serve all rows of a tile out of L1, every inner loop runs over 64
// pixels and vectorises, and full-size logits never exist. Columns beyond the image are padding: they hold zeros.
#pragma once

#include <algorithm>
#include <vector>

#include "upsample.h"

namespace iidm {

constexpr int kTile = 64;

// All that the upsampling needs beside the logits.
class UpsamplePlan {
 public:
  explicit UpsamplePlan(const UpsampledShape& shape)
      : tiles((shape.out_w + kTile - 1) / kTile),
        first(tiles * kTile, 0),
        second(tiles * kTile, 0),
        weight_first(tiles * kTile, 0.0f),
        weight_second(tiles * kTile, 0.0f),
        strip_begin(shape.in_h + 1, shape.out_h) {
    const float scale_x = source_scale(shape.in_w, shape.out_w, shape.align_corners);
    for (int x = 0; x < shape.out_w; ++x) {
      const Tap tap = source_tap(x, shape.in_w, scale_x, shape.align_corners);
      first[x] = tap.first;
      second[x] = tap.second;
      weight_first[x] = tap.weight_first;
      weight_second[x] = tap.weight_second;
    }
    const float scale_y = source_scale(shape.in_h, shape.out_h, shape.align_corners);
    int row = 0;
    for (int y = 0; y < shape.out_h; ++y) {
      rows.push_back(source_tap(y, shape.in_h, scale_y, shape.align_corners));
      while (row <= rows.back().first) strip_begin[row++] = y;
    }
  }

  int tiles;
  std::vector<int32_t> first, second;              // [tiles * kTile] low-resolution columns of an output column
  std::vector<float> weight_first, weight_second;  // their weights
  std::vector<Tap> rows;                           // [out_h]
  std::vector<int> strip_begin;                    // [in_h + 1] first output row of each strip
};

// wide[k][0..63] for the output columns from `begin` on. low: rows of one low-resolution line, `plane` floats apart.
static IIDM_CLONES void widen(const float* low, int64_t plane, int classes, const UpsamplePlan& plan, int begin,
                              float* wide) {
  const int32_t* first = plan.first.data() + begin;
  const int32_t* second = plan.second.data() + begin;
  const float* weight_first = plan.weight_first.data() + begin;
  const float* weight_second = plan.weight_second.data() + begin;
  for (int k = 0; k < classes; ++k, low += plane, wide += kTile) {
    for (int x = 0; x < kTile; ++x) {
      wide[x] = blend(low[first[x]], low[second[x]], weight_first[x], weight_second[x]);
    }
  }
}

// The labels of a tile's row as int32, 255 in the padding.
inline void load_labels(const uint8_t* label, int count, int32_t* truth) {
  for (int x = 0; x < count; ++x) truth[x] = label[x];
  for (int x = count; x < kTile; ++x) truth[x] = kIgnored;
}

struct Tile {
  int image, strip;
  int column, columns;        // the first output column, and how many of the 64 exist
  int row, row_end;           // output rows
  const float *upper, *lower; // widened low-resolution rows [K, 64]
};

// Visits every tile of the batch that holds pixels. `make_visitor` is called once a thread, for its buffers. One thread
// visits all tiles of a strip, in order along x: what a visitor sums up by strip does not depend on their number.
template <class MakeVisitor>
void visit_tiles(const float* logits, const UpsampledShape& s, const UpsamplePlan& plan, MakeVisitor make_visitor) {
  // Neighbouring strips go to one thread: the lower row of one is the upper row of the next.
  constexpr int kStrips = 8;
  const int64_t plane = static_cast<int64_t>(s.in_h) * s.in_w;
  const int64_t size = static_cast<int64_t>(s.classes) * kTile;
  const int groups = (s.in_h + kStrips - 1) / kStrips;
#pragma omp parallel if (s.batch * groups > 1)
  {
    std::vector<float> wide(2 * size);
    auto visit = make_visitor();
#pragma omp for schedule(dynamic)
    for (int i = 0; i < s.batch * groups; ++i) {
      Tile t;
      t.image = i / groups;
      const float* low = logits + t.image * s.classes * plane;
      const int begin = i % groups * kStrips, end = std::min(s.in_h, begin + kStrips);
      for (int tile = 0; tile < plan.tiles; ++tile) {
        t.column = tile * kTile;
        t.columns = std::min(kTile, s.out_w - t.column);
        float *upper = wide.data(), *lower = upper + size;
        int upper_row = -1;  // the low-resolution row that `upper` holds
        for (t.strip = begin; t.strip < end; ++t.strip) {
          t.row = plan.strip_begin[t.strip];
          t.row_end = plan.strip_begin[t.strip + 1];
          if (t.row == t.row_end) continue;
          const int lower_row = plan.rows[t.row].second;
          const auto fill = [&](int row, float* wide_row) {
            widen(low + static_cast<int64_t>(row) * s.in_w, plane, s.classes, plan, t.column, wide_row);
          };
          if (upper_row != t.strip) fill(t.strip, upper);
          fill(lower_row, lower);
          t.upper = upper;
          t.lower = lower;
          visit(t);
          std::swap(upper, lower);
          upper_row = lower_row;
        }
      }
    }
  }
}

}  // namespace iidm
