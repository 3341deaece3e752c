// Blur on the CPU: bands of lines. A band's lines are converted to float once, blended down (over whole lines, so it
// vectorises whatever the layout), then along the line with its reflected ends written out.
#include "blur.h"

#include <algorithm>
#include <vector>

#include "formats.h"

namespace iidm {
namespace {

constexpr int kBand = 32;

IIDM_CLONES void to_floats(const void* line, Format format, int64_t count, float* out) {
  if (format == Format::kFloat32) {
    std::memcpy(out, line, count * sizeof(float));
  } else if (format == Format::kBFloat16) {
    const auto* from = static_cast<const uint16_t*>(line);
    for (int64_t i = 0; i < count; ++i) out[i] = from_bfloat16(from[i]);
  } else {
    const auto* from = static_cast<const uint16_t*>(line);
    for (int64_t i = 0; i < count; ++i) out[i] = from_float16(from[i]);
  }
}

IIDM_CLONES void from_floats(const float* values, Format format, int64_t count, void* line) {
  if (format == Format::kFloat32) {
    std::memcpy(line, values, count * sizeof(float));
  } else if (format == Format::kBFloat16) {
    auto* to = static_cast<uint16_t*>(line);
    for (int64_t i = 0; i < count; ++i) to[i] = to_bfloat16(values[i]);
  } else {
    auto* to = static_cast<uint16_t*>(line);
    for (int64_t i = 0; i < count; ++i) to[i] = to_float16(values[i]);
  }
}

IIDM_CLONES void scale_line(const float* x, float weight, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * weight;
}

IIDM_CLONES void add_pair(const float* x, const float* y, float weight, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] += (x[i] + y[i]) * weight;
}

// Output lines begin..end - 1 of one picture.
void blur_band(const BlurArguments& a, const char* picture, const float* taps, int begin, int end, char* out,
               std::vector<float>& work) {
  const int64_t numbers = static_cast<int64_t>(a.width) * a.channels;
  const int64_t bytes = numbers * (a.format == Format::kFloat32 ? 4 : 2);
  const int radius = a.radius;
  const int lines = end - begin + 2 * radius;
  const int64_t side = static_cast<int64_t>(radius) * a.channels;
  work.resize(lines * numbers + (numbers + 2 * side) + numbers);
  float* loaded = work.data();
  float* padded = loaded + lines * numbers;
  float* result = padded + numbers + 2 * side;
  for (int i = 0; i < lines; ++i) {
    const int y = reflected(begin - radius + i, a.height);
    to_floats(picture + y * bytes, a.format, numbers, loaded + i * numbers);
  }
  float* down = padded + side;
  for (int y = begin; y < end; ++y) {
    const float* centre = loaded + (y - begin + radius) * numbers;
    scale_line(centre, taps[0], numbers, down);
    for (int j = 1; j <= radius; ++j) {
      add_pair(centre - j * numbers, centre + j * numbers, taps[j], numbers, down);
    }
    for (int i = 1; i <= radius; ++i) {
      const int left = reflected(-i, a.width), right = reflected(a.width - 1 + i, a.width);
      for (int c = 0; c < a.channels; ++c) {
        down[-i * a.channels + c] = down[left * a.channels + c];
        down[(a.width - 1 + i) * a.channels + c] = down[right * a.channels + c];
      }
    }
    scale_line(down, taps[0], numbers, result);
    for (int j = 1; j <= radius; ++j) {
      const int64_t offset = static_cast<int64_t>(j) * a.channels;
      add_pair(down - offset, down + offset, taps[j], numbers, result);
    }
    from_floats(result, a.format, numbers, out + y * bytes);
  }
}

}  // namespace

void blur_cpu(const BlurArguments& a) {
  const int bands = (a.height + kBand - 1) / kBand;
  const int pictures = a.batch * a.planes;
  const int64_t bytes = static_cast<int64_t>(a.height) * a.width * a.channels * (a.format == Format::kFloat32 ? 4 : 2);
#pragma omp parallel if (pictures * bands > 1)
  {
    std::vector<float> work;
#pragma omp for collapse(2) schedule(dynamic)
    for (int p = 0; p < pictures; ++p) {
      for (int band = 0; band < bands; ++band) {
        const int image = p / a.planes;
        const int begin = band * kBand, end = std::min(a.height, begin + kBand);
        const char* from = static_cast<const char*>(a.image) + p * bytes;
        char* to = static_cast<char*>(a.out) + p * bytes;
        if (a.enabled[image]) {
          blur_band(a, from, a.taps + static_cast<int64_t>(image) * (a.radius + 1), begin, end, to, work);
        } else {
          const int64_t line = bytes / a.height;
          std::memcpy(to + begin * line, from + begin * line, (end - begin) * line);
        }
      }
    }
  }
}

}  // namespace iidm
