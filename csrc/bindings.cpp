// The Python module iidm.kernels._C. It links no libtorch: Python allocates and checks, here arrive raw pointers,
// sizes and the stream. So it builds in seconds and serves every torch version.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "confusion_matrix.h"

#ifndef IIDM_CUDA_ARCHS
#define IIDM_CUDA_ARCHS ""
#endif

namespace py = pybind11;

namespace {

// (B, K, h, w, H, W)
using Sizes = std::tuple<int, int, int, int, int, int>;

iidm::UpsampledShape upsampled_shape(const Sizes& sizes, bool align_corners) {
  const auto& [batch, classes, in_h, in_w, out_h, out_w] = sizes;
  return {batch, classes, in_h, in_w, out_h, out_w, align_corners};
}

void confusion_matrix_cpu(std::uintptr_t logits, std::uintptr_t label, std::uintptr_t counts, const Sizes& sizes,
                          bool align_corners) {
  const auto shape = upsampled_shape(sizes, align_corners);
  const py::gil_scoped_release release;
  iidm::confusion_matrix_cpu(reinterpret_cast<const float*>(logits), reinterpret_cast<const std::uint8_t*>(label),
                             reinterpret_cast<std::int64_t*>(counts), shape);
}

#ifdef IIDM_WITH_CUDA
void raise_on(int error, const char* op) {
  if (error != 0) {
    throw std::runtime_error(std::string("The CUDA kernel of ") + op + " did not start: " +
                             iidm::cuda_error_text(error) + " (error " + std::to_string(error) + ").");
  }
}

void confusion_matrix_cuda(std::uintptr_t logits, std::uintptr_t label, std::uintptr_t counts, const Sizes& sizes,
                           bool align_corners, int device, std::uintptr_t stream) {
  const auto shape = upsampled_shape(sizes, align_corners);
  const int error = iidm::confusion_matrix_cuda(
      reinterpret_cast<const float*>(logits), reinterpret_cast<const std::uint8_t*>(label),
      reinterpret_cast<std::int64_t*>(counts), shape, device, reinterpret_cast<void*>(stream));
  raise_on(error, "confusion_matrix");
}
#endif

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
  m.doc() = "Fused kernels of iidm.kernels; pointers are integers, tensors are dense.";
  m.def("build_info", &build_info);
  m.def("confusion_matrix_cpu", &confusion_matrix_cpu, py::arg("logits"), py::arg("label"), py::arg("counts"),
        py::arg("sizes"), py::arg("align_corners"));
#ifdef IIDM_WITH_CUDA
  m.def("confusion_matrix_cuda", &confusion_matrix_cuda, py::arg("logits"), py::arg("label"), py::arg("counts"),
        py::arg("sizes"), py::arg("align_corners"), py::arg("device"), py::arg("stream"));
#endif
}
