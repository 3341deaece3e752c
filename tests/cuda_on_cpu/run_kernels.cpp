// Runs every CUDA kernel on the CPU at awkward sizes, for the sanitizers: run_kernels few|many [OP...].
// Each buffer is an allocation of its own that ends where its numbers end: one element too far is found.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "blur.h"
#include "classmix.h"
#include "confusion_matrix.h"

namespace {

using iidm::Format;

// `shift`: by how many elements images and labels begin behind a place that is aligned for every vector.
struct Size {
  int batch, height, width, shift;
  size_t pixels() const { return static_cast<size_t>(batch) * height * width; }
};
const std::vector<Size> kFew = {{1, 1, 1, 0}, {3, 5, 7, 1}, {2, 16, 24, 0}, {1, 16, 24, 1}, {1, 48, 100, 0}};
const std::vector<Size> kMore = {{2, 63, 1, 0}, {5, 1, 63, 0}, {1, 33, 50, 2}, {3, 64, 128, 0}, {2, 31, 33, 3}, {7, 4, 4, 0}};
const std::vector<Format> kFormats = {Format::kFloat32, Format::kBFloat16, Format::kFloat16};

std::mt19937 random_numbers(1);
int failures = 0;

// Integers below `limit` divided by `divisor`.
template <class T>
class Buffer {
 public:
  Buffer(size_t count, int limit, int shift = 0, float divisor = 1)
      : memory_(static_cast<T*>(std::malloc((count + shift) * sizeof(T)))), begin_(memory_ + shift) {
    for (size_t i = 0; i < count; ++i) begin_[i] = static_cast<T>(static_cast<int>(random_numbers() % limit) / divisor);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(memory_); }
  operator T*() { return begin_; }

 private:
  T* memory_;
  T* begin_;
};
struct Fractions : Buffer<float> {
  explicit Fractions(size_t count, int shift = 0) : Buffer(count, 1000, shift, 1000) {}
};
using Bytes = Buffer<uint8_t>;

void expect_success(int error, const char* op) {
  if (error == 0) return;
  ++failures;
  std::printf("%s: %s\n", op, iidm::cuda_error_text(error));
}

// The jitter of some images is off. Each image has another order of the four steps.
struct Jitters {
  Buffer<bool> enabled;
  Fractions brightness, contrast, saturation, hue;
  Buffer<int64_t> order;
  explicit Jitters(int batch)
      : enabled(batch, 2), brightness(batch), contrast(batch), saturation(batch), hue(batch), order(batch * 4, 1) {
    for (int i = 0; i < batch * 4; ++i) order[i] = (i * 3 + i / 4) % 4;
  }
  iidm::JitterArrays arrays() { return {enabled, brightness, contrast, saturation, hue, order}; }
};

size_t bytes_of(Format format) { return format == Format::kFloat32 ? 4 : 2; }

void run_jitter(const Size& s) {
  for (const Format format : kFormats) {
    for (const bool jittered : {true, false}) {
      Bytes image(s.pixels() * 3, 256, s.shift), out(s.pixels() * 3 * bytes_of(format), 1);
      Jitters jitters(s.batch);
      const iidm::JitterArrays arrays = jittered ? jitters.arrays() : iidm::JitterArrays{};
      expect_success(iidm::jitter_cuda({s.batch, s.height, s.width, image, arrays, {{4, 4, 4}, {2, 2, 2}}, out, format},
                                       0, nullptr), "jitter");
    }
  }
}

void run_classmix(const Size& s) {
  for (const Format format : kFormats) {
    for (const bool per_pixel : {true, false}) {
      Bytes image(s.pixels() * 3, 256, s.shift), base_image(s.pixels() * 3, 256), label(s.pixels(), 256, s.shift);
      Bytes base_label(s.pixels(), 19), out_label(s.pixels(), 1), out(s.pixels() * 3 * bytes_of(format), 1);
      Fractions weight(per_pixel ? s.pixels() : s.batch), out_weight(s.pixels());
      Buffer<bool> selected(s.batch * 256, 2);
      Jitters jitters(s.batch);
      iidm::ClassmixArguments a = {};
      a.common = {s.batch, s.height, s.width, image, jitters.arrays(), {{4, 4, 4}, {2, 2, 2}}, out, format};
      a.label = label, a.base_image = base_image, a.base_label = base_label, a.base_weight = weight;
      a.weight_per_pixel = per_pixel, a.selected = selected, a.has_pasted_weight = !per_pixel, a.pasted_weight = 0.5f;
      a.margin_top = 1, a.margin_bottom = 2, a.out_label = out_label, a.out_weight = out_weight;
      expect_success(iidm::classmix_cuda(a, 0, nullptr), "classmix");
    }
  }
}

void run_draw_classes(const Size& s) {
  for (const bool from_batch : {true, false}) {
    // Labels of 256 values, and of a few that are found again and again.
    for (const int classes : {256, 3}) {
      Bytes label(s.pixels(), classes, s.shift);
      Fractions keys(s.batch * 256);
      Buffer<bool> selected(s.batch * 256, 1);
      Buffer<uint32_t> present(s.batch * 8, 1);
      const int64_t pixels = static_cast<int64_t>(s.height) * s.width;
      const iidm::DrawArguments a = {s.batch, pixels, label, keys, from_batch, true, !from_batch, selected};
      expect_success(iidm::draw_classes_cuda(a, present, 0, nullptr), "draw_classes");
    }
  }
}

void run_blur(const Size& s) {
  for (const Format format : kFormats) {
    for (const int radius : {1, 5, 25}) {
      for (const int planes : {1, 3}) {
        Bytes image(s.pixels() * 3 * bytes_of(format), 61), out(s.pixels() * 3 * bytes_of(format), 1);
        Fractions taps(s.batch * (radius + 1));
        Buffer<bool> enabled(s.batch, 1);
        for (int i = 0; i < s.batch; ++i) enabled[i] = i != 1;
        const iidm::BlurArguments a = {s.batch, planes, s.height, s.width, planes == 1 ? 3 : 1, image, taps, enabled,
                                       radius, out, format};
        expect_success(iidm::blur_cuda(a, 0, nullptr), "blur");
      }
    }
  }
}

void run_confusion_matrix(const Size& s) {
  for (const int classes : {1, 19, 130}) {
    for (const bool align_corners : {true, false}) {
      const int low_h = (s.height + 7) / 8, low_w = (s.width + 7) / 8;
      Fractions logits(static_cast<size_t>(s.batch) * classes * low_h * low_w);
      Bytes label(s.pixels(), 256, s.shift);
      for (size_t i = 0; i < s.pixels(); ++i) label[i] = label[i] % 5 == 0 ? label[i] : label[i] % classes;
      Buffer<int64_t> counts(classes * classes + 1, 1);
      const iidm::UpsampledShape shape = {s.batch, classes, low_h, low_w, s.height, s.width, align_corners};
      expect_success(iidm::confusion_matrix_cuda(logits, label, counts, shape, 0, nullptr), "confusion_matrix");
    }
  }
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::pair<const char*, void (*)(const Size&)>> ops = {
      {"jitter", run_jitter}, {"classmix", run_classmix}, {"draw_classes", run_draw_classes},
      {"blur", run_blur},     {"confusion_matrix", run_confusion_matrix}};
  std::vector<Size> sizes = kFew;
  if (count > 1 && std::strcmp(words[1], "many") == 0) sizes.insert(sizes.end(), kMore.begin(), kMore.end());
  int calls = 0;
  for (const auto& [name, run] : ops) {
    const auto named = [name = name](const char* word) { return std::strcmp(word, name) == 0; };
    if (count > 2 && std::none_of(words + 2, words + count, named)) continue;
    for (const Size& size : sizes) run(size), ++calls;
  }
  std::printf("%d sizes of ops, %d errors\n", calls, failures);
  return failures != 0;
}
