// Cases that cases.py wrote: named arrays, here given to the kernels and compared with what the
// reference expects.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <cuda_runtime.h> // the shim's

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../../csrc/kernels.h"

namespace cases {

using accl::DType;

inline int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}
inline DType accumulation(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// One case: arrays of bytes by name.
class Case {
 public:
  std::map<std::string, std::vector<char>> fields;

  bool has(const std::string& name) const { return fields.count(name) > 0; }
  std::string text(const std::string& name) const {
    return {fields.at(name).begin(), fields.at(name).end()};
  }
  template <class T>
  std::vector<T> array(const std::string& name) const {
    const std::vector<char>& bytes = fields.at(name);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  int64_t integer(const std::string& name, size_t i = 0) const {
    return array<int64_t>(name).at(i);
  }
};

inline std::vector<Case> read_cases(const char* path) {
  FILE* const file = std::fopen(path, "rb");
  if (!file) std::perror(path), std::exit(2);
  const auto number = [file](uint64_t* to) { return std::fread(to, 8, 1, file) == 1; };
  std::vector<Case> all;
  uint64_t fields = 0;
  while (number(&fields)) {
    Case one;
    for (uint64_t i = 0; i < fields; ++i) {
      uint64_t name_size = 0, size = 0;
      if (!number(&name_size) || !number(&size)) std::exit(2);
      std::string name(name_size, 0);
      std::vector<char> bytes(size);
      if (std::fread(&name[0], 1, name_size, file) != name_size) std::exit(2);
      if (std::fread(bytes.data(), 1, size, file) != size) std::exit(2);
      one.fields[name] = bytes;
    }
    all.push_back(one);
  }
  std::fclose(file);
  return all;
}

// Exactly as many bytes as the array has, so that AddressSanitizer sees the first one beyond.
// `shift` bytes before it put it off its alignment.
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t size, int64_t shift) : size_(size), shift_(shift) {
    base_.reset(static_cast<char*>(std::malloc(size + shift)), std::free);
    std::memset(base_.get(), 0xff, size + shift); // NaN in every dtype: what stays shows
  }
  Buffer(const std::vector<char>& from, int64_t shift) : Buffer(int64_t(from.size()), shift) {
    if (!from.empty()) std::memcpy(data(), from.data(), from.size());
  }
  explicit operator bool() const { return base_ != nullptr; }
  void* data() const { return base_ ? base_.get() + shift_ : nullptr; }
  void* at(int64_t bytes) const { return base_ ? base_.get() + shift_ + bytes : nullptr; }
  std::vector<char> bytes() const {
    const char* const begin = static_cast<const char*>(data());
    return base_ ? std::vector<char>(begin, begin + size_) : std::vector<char>();
  }
  void poison() const {
    if (base_) std::memset(data(), 0xff, size_);
  }

 private:
  std::shared_ptr<char> base_;
  int64_t size_ = 0, shift_ = 0;
};

inline double element(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat16: return __half2float(static_cast<const __half*>(data)[i]);
    case DType::kBFloat16: return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    case DType::kFloat64: return static_cast<const double*>(data)[i];
    case DType::kFloat32: break;
  }
  return static_cast<const float*>(data)[i];
}

// Elements of a vector.
inline int64_t width_of(DType dtype) { return dtype == DType::kFloat64 ? 2 : 4; }

// Of one rounding to the dtype, relative.
inline double rounding(DType dtype) {
  switch (dtype) {
    case DType::kFloat16: return 0x1p-11;
    case DType::kBFloat16: return 0x1p-8;
    case DType::kFloat64: return 0x1p-53;
    case DType::kFloat32: break;
  }
  return 0x1p-24;
}

class Checker {
 public:
  std::string name;
  int failures = 0;

  void fail(const std::string& what) {
    ++failures;
    std::printf("%s: %s\n", name.c_str(), what.c_str());
  }

  // Within the accumulation type's tolerance, 1e-5 or 1e-12 of the largest, and one rounding to
  // the dtype (two where it lies between two numbers: the sum may fall on the other side).
  void close(const std::string& what, const void* data, DType dtype,
             const std::vector<double>& expected) {
    double largest = 0;
    for (double x : expected)
      largest = std::isfinite(x) ? std::fmax(largest, std::fabs(x)) : largest;
    const double tolerance = dtype == DType::kFloat64 ? 1e-12 : 1e-5;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double got = element(data, dtype, int64_t(i)), wanted = expected[i];
      if (std::isnan(wanted) ? std::isnan(got) : got == wanted) continue;
      const double allowed = tolerance * largest + 2 * rounding(dtype) * std::fabs(wanted) +
                             (dtype == DType::kFloat16 ? 0x1p-24 : 0);
      if (std::fabs(got - wanted) <= allowed) continue;
      char text[160];
      std::snprintf(text, sizeof(text), "%s[%zu] is %.9g, expected %.9g", what.c_str(), i, got,
                    wanted);
      return fail(text);
    }
  }

  void same(const std::string& what, const std::vector<char>& got,
            const std::vector<char>& wanted) {
    if (got != wanted) fail(what + " is not bit for bit the same");
  }

  // Runs `work`, which stores `vectors` vectors of maps of the dtype: all but the end of a row. The
  // thread whose vector such an end cuts may store one more element by element, `cut` in all.
  void stores_vectors(DType dtype, int64_t vectors, int64_t cut,
                      const std::function<void()>& work) {
#ifdef ACCL_CUDA_ON_CPU // the words that a simulator of the machine's instructions counts by itself
    auto& words = cuda_on_cpu::words_of(dtype == accumulation(dtype) ? 16 : 8);
    words = 0;
    work();
    if (words <= vectors && words >= vectors - cut) return;
    fail("stored " + std::to_string(words) + " vectors, expected " + std::to_string(vectors));
#else
    (void)dtype, (void)vectors, (void)cut;
    work();
#endif
  }

  // Runs `work`, which must be so many launches.
  void launches(int count, const std::string& what, const std::function<int()>& work) {
    const int before = cuda_on_cpu::pool().launches;
    if (work() != 0) fail(what + " reports an error");
    if (cuda_on_cpu::pool().launches == before + count) return;
    fail(what + " is not " + std::to_string(count) + " launch" + (count > 1 ? "es" : ""));
  }
  void one_launch(const std::string& what, const std::function<int()>& work) {
    launches(1, what, work);
  }
};

// main() of the executables: argv[1] is a file of cases.
inline int run(int argc, char** argv, void (*run_case)(const Case&, Checker&)) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s CASES\n", argv[0]), 2;
  Checker checker;
  const std::vector<Case> all = read_cases(argv[1]);
  for (const Case& one : all) {
    checker.name = one.text("name");
    run_case(one, checker);
  }
  std::printf("%zu cases, %d failures\n", all.size(), checker.failures);
  return all.empty() || checker.failures ? 1 : 0;
}

} // namespace cases
