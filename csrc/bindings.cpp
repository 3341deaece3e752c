// The Python module iidm.kernels._C. It links no libtorch: Python allocates and checks, here arrive raw pointers (as
// integers), sizes and the stream. So it builds in seconds and serves every torch version. A device of -1 is the CPU.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "batch_norm.h"
#include "blur.h"
#include "classmix.h"
#include "confusion_matrix.h"
#include "cross_entropy.h"
#include "depthwise.h"
#include "pseudo_label.h"

#ifndef IIDM_CUDA_ARCHS
#define IIDM_CUDA_ARCHS ""
#endif

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;
using Sizes = std::tuple<int, int, int, int, int, int>;  // (B, K, h, w, H, W)
using ImageSizes = std::tuple<int, int, int>;            // (B, H, W)
using JitterAddresses = std::array<Address, 6>;          // enabled, brightness, contrast, saturation, hue, order; or 0s
using Channels = std::array<float, 3>;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

iidm::UpsampledShape upsampled_shape(const Sizes& sizes, bool align_corners) {
  const auto& [batch, classes, in_h, in_w, out_h, out_w] = sizes;
  return {batch, classes, in_h, in_w, out_h, out_w, align_corners};
}

#ifdef IIDM_WITH_CUDA
void raise_on(int error, const char* op) {
  if (error != 0) {
    throw std::runtime_error(std::string("The CUDA kernel of ") + op + " did not start: " +
                             iidm::cuda_error_text(error) + " (error " + std::to_string(error) + ").");
  }
}
#define IIDM_RUN_CUDA(op, call) raise_on(call, op)
#else
#define IIDM_RUN_CUDA(op, call) throw std::runtime_error("This build has no CUDA kernels; IIDM_CUDA=1 builds them.")
#endif

iidm::JitterArguments jitter_arguments(Address image, const JitterAddresses& jitter, const Channels& scale,
                                       const Channels& shift, const ImageSizes& sizes, Address out, int format) {
  iidm::JitterArguments a;
  std::tie(a.batch, a.height, a.width) = sizes;
  a.image = at<const std::uint8_t>(image);
  a.jitter = {at<const bool>(jitter[0]),  at<const float>(jitter[1]), at<const float>(jitter[2]),
              at<const float>(jitter[3]), at<const float>(jitter[4]), at<const std::int64_t>(jitter[5])};
  for (int c = 0; c < 3; ++c) {
    a.normalization.scale[c] = scale[c];
    a.normalization.shift[c] = shift[c];
  }
  a.out = at<void>(out);
  a.format = static_cast<iidm::Format>(format);
  return a;
}

void jitter(Address image, const JitterAddresses& params, const Channels& scale, const Channels& shift,
            const ImageSizes& sizes, Address out, int format, int device, Address stream) {
  const auto a = jitter_arguments(image, params, scale, shift, sizes, out, format);
  const py::gil_scoped_release release;
  if (device < 0) return iidm::jitter_cpu(a);
  IIDM_RUN_CUDA("jitter", iidm::jitter_cuda(a, device, at<void>(stream)));
}

void classmix(Address image, Address label, Address base_image, Address base_label, Address base_weight,
              bool weight_per_pixel, Address selected, const JitterAddresses& params, bool has_pasted_weight,
              float pasted_weight, const Channels& scale, const Channels& shift, int margin_top, int margin_bottom,
              const ImageSizes& sizes, Address out_image, Address out_label, Address out_weight, int format, int device,
              Address stream) {
  iidm::ClassmixArguments a;
  a.common = jitter_arguments(image, params, scale, shift, sizes, out_image, format);
  a.label = at<const std::uint8_t>(label);
  a.base_image = at<const std::uint8_t>(base_image);
  a.base_label = at<const std::uint8_t>(base_label);
  a.base_weight = at<const float>(base_weight);
  a.weight_per_pixel = weight_per_pixel;
  a.selected = at<const bool>(selected);
  a.has_pasted_weight = has_pasted_weight;
  a.pasted_weight = pasted_weight;
  a.margin_top = margin_top;
  a.margin_bottom = margin_bottom;
  a.out_label = at<std::uint8_t>(out_label);
  a.out_weight = at<float>(out_weight);
  const py::gil_scoped_release release;
  if (device < 0) return iidm::classmix_cpu(a);
  IIDM_RUN_CUDA("classmix", iidm::classmix_cuda(a, device, at<void>(stream)));
}

void draw_classes(Address label, Address keys, int batch, std::int64_t pixels, bool from_batch, bool round_up,
                  bool include_ignored, Address selected, Address present, int device, Address stream) {
  const iidm::DrawArguments a = {batch,     pixels,   at<const std::uint8_t>(label), at<const float>(keys),
                                 from_batch, round_up, include_ignored,              at<bool>(selected)};
  const py::gil_scoped_release release;
  if (device < 0) return iidm::draw_classes_cpu(a);
  IIDM_RUN_CUDA("draw_classes", iidm::draw_classes_cuda(a, at<std::uint32_t>(present), device, at<void>(stream)));
}

void blur(Address image, Address taps, Address enabled, const std::array<int, 5>& sizes, int radius, Address out,
          int format, int device, Address stream) {
  const iidm::BlurArguments a = {sizes[0],
                                 sizes[1],
                                 sizes[2],
                                 sizes[3],
                                 sizes[4],
                                 at<const void>(image),
                                 at<const float>(taps),
                                 at<const bool>(enabled),
                                 radius,
                                 at<void>(out),
                                 static_cast<iidm::Format>(format)};
  const py::gil_scoped_release release;
  if (device < 0) return iidm::blur_cpu(a);
  IIDM_RUN_CUDA("blur", iidm::blur_cuda(a, device, at<void>(stream)));
}

void confusion_matrix(Address logits, Address label, Address counts, const Sizes& sizes, bool align_corners, int device,
                      Address stream) {
  const auto shape = upsampled_shape(sizes, align_corners);
  const py::gil_scoped_release release;
  if (device < 0) {
    return iidm::confusion_matrix_cpu(at<const float>(logits), at<const std::uint8_t>(label), at<std::int64_t>(counts),
                                      shape);
  }
  IIDM_RUN_CUDA("confusion_matrix",
                iidm::confusion_matrix_cuda(at<const float>(logits), at<const std::uint8_t>(label),
                                            at<std::int64_t>(counts), shape, device, at<void>(stream)));
}

void pseudo_label_cpu(Address logits, const Sizes& sizes, bool align_corners, float threshold, bool inclusive,
                      Address label, Address confident, Address confidence) {
  const auto shape = upsampled_shape(sizes, align_corners);
  const py::gil_scoped_release release;
  iidm::pseudo_label_cpu(at<const float>(logits), shape, threshold, inclusive, at<std::uint8_t>(label),
                         at<std::int64_t>(confident), at<float>(confidence));
}

int cross_entropy_cpu(Address logits, Address label, Address weight, bool weight_per_pixel, Address class_weight,
                      int normalizer, const Sizes& sizes, bool align_corners, Address loss, Address grad,
                      Address scratch) {
  const auto shape = upsampled_shape(sizes, align_corners);
  const iidm::PixelWeights weights = {at<const float>(weight), weight_per_pixel, at<const float>(class_weight)};
  const py::gil_scoped_release release;
  return iidm::cross_entropy_cpu(at<const float>(logits), at<const std::uint8_t>(label), weights,
                                 static_cast<iidm::Normalizer>(normalizer), shape, at<float>(loss), at<float>(grad),
                                 at<float>(scratch));
}

void batch_norm_cpu(const std::vector<std::int64_t>& starts, int channels, int format, int activation, Address x,
                    Address residual, Address weight, Address bias, Address running_mean, Address running_var,
                    float momentum, float eps, Address y, Address mean, Address rstd) {
  const iidm::BatchNormShape shape = {starts, channels, static_cast<iidm::Format>(format),
                                      static_cast<iidm::Activation>(activation)};
  const iidm::BatchNormForward a = {at<const void>(x),
                                    at<const void>(residual),
                                    at<const float>(weight),
                                    at<const float>(bias),
                                    at<float>(running_mean),
                                    at<float>(running_var),
                                    momentum,
                                    eps,
                                    at<void>(y),
                                    at<float>(mean),
                                    at<float>(rstd)};
  const py::gil_scoped_release release;
  iidm::batch_norm_forward_cpu(shape, a);
}

void batch_norm_backward_cpu(const std::vector<std::int64_t>& starts, int channels, int format, int activation,
                             Address grad, Address x, Address y, Address mean, Address rstd, Address weight,
                             Address grad_x, Address grad_residual, Address grad_weight, Address grad_bias) {
  const iidm::BatchNormShape shape = {starts, channels, static_cast<iidm::Format>(format),
                                      static_cast<iidm::Activation>(activation)};
  const iidm::BatchNormBackward a = {at<const void>(grad),  at<const void>(x),       at<const void>(y),
                                     at<const float>(mean), at<const float>(rstd),   at<const float>(weight),
                                     at<void>(grad_x),      at<void>(grad_residual), at<float>(grad_weight),
                                     at<float>(grad_bias)};
  const py::gil_scoped_release release;
  iidm::batch_norm_backward_cpu(shape, a);
}

iidm::DepthwiseShape depthwise_shape(const std::array<int, 4>& sizes, int stride, int dilation, int format) {
  const auto& [batch, channels, height, width] = sizes;
  const int longest = std::max({height, width, 1});  // whatever is larger leads out of the image as well
  return {batch, channels, height, width, std::min(stride, longest), std::min(dilation, longest),
          static_cast<iidm::Format>(format)};
}

void depthwise_cpu(const std::array<int, 4>& sizes, int stride, int dilation, int format, Address x, Address weight,
                   Address y) {
  const auto shape = depthwise_shape(sizes, stride, dilation, format);
  const py::gil_scoped_release release;
  iidm::depthwise_forward_cpu(shape, at<const void>(x), at<const void>(weight), at<void>(y));
}

void depthwise_backward_cpu(const std::array<int, 4>& sizes, int stride, int dilation, int format, Address grad,
                            Address x, Address weight, Address grad_x, Address grad_weight) {
  const auto shape = depthwise_shape(sizes, stride, dilation, format);
  const py::gil_scoped_release release;
  iidm::depthwise_backward_cpu(shape, at<const void>(grad), at<const void>(x), at<const void>(weight),
                               at<void>(grad_x), at<void>(grad_weight));
}

py::dict build_info() {
  py::dict info;
#ifdef IIDM_WITH_CUDA
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  info["cuda_arches"] = IIDM_CUDA_ARCHS;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "g++ " __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
#ifdef _OPENMP
  info["openmp"] = _OPENMP;
#else
  info["openmp"] = 0;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Fused kernels of iidm.kernels; pointers are integers, tensors are dense, a device of -1 is the CPU.";
  m.def("build_info", &build_info);
  m.def("jitter", &jitter);
  m.def("classmix", &classmix);
  m.def("draw_classes", &draw_classes);
  m.def("blur", &blur);
  m.def("confusion_matrix", &confusion_matrix);
  m.def("pseudo_label_cpu", &pseudo_label_cpu);
  m.def("cross_entropy_cpu", &cross_entropy_cpu);
  m.def("batch_norm_cpu", &batch_norm_cpu);
  m.def("batch_norm_backward_cpu", &batch_norm_backward_cpu);
  m.def("depthwise_cpu", &depthwise_cpu);
  m.def("depthwise_backward_cpu", &depthwise_backward_cpu);
}
