// The kernels alone, without torch: random problems of every kind on exactly sized memory, against the formula in
// double. Built with AddressSanitizer and UndefinedBehaviorSanitizer by test_kernels.py. Prints a line and exits 1 on a
// mismatch.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/kernels/dispatch.h"

using namespace ddfnet;

namespace {

uint64_t state = 1;
int64_t random_below(int64_t n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(n));
}
double random_value() {
  return static_cast<double>(random_below(2001) - 1000) / 500;
}

// Parts of uneven size in a muddled order, as threads would take them.
void parallel_for(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  const int64_t middle = count > grain ? count / 3 + 1 : count;
  if (middle < count) body(context, middle, count);
  if (middle > 0) body(context, 0, middle);
}

int64_t bytes_of(DType dtype) {
  return dtype == DType::Float64 ? 8 : dtype == DType::Float32 ? 4 : 2;
}

// An array of exactly the bytes that its layout needs, and its values in double. Halves and bfloat16s hold small
// integers divided by powers of two, which all types represent, so that conversions are exact.
struct Values {
  Values(const int64_t (&shape)[4], bool channels_last, DType dtype, bool fill) : dtype(dtype) {
    std::memcpy(size, shape, sizeof size);
    const int order_planes[4] = {3, 2, 1, 0}, order_pixels[4] = {1, 3, 2, 0};
    int64_t step = 1;
    for (int i = 0; i < 4; ++i) {
      const int d = channels_last ? order_pixels[i] : order_planes[i];
      stride[d] = step;
      step *= size[d];
    }
    count = step;
    memory = std::unique_ptr<char[]>(new char[static_cast<size_t>(count * bytes_of(dtype))]);
    std::memset(memory.get(), 0xff, static_cast<size_t>(count * bytes_of(dtype)));
    if (!fill) return;
    exact.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) set(i, random_value());
  }

  void set(int64_t i, double value) {
    value = std::round(value * 16) / 16;
    exact[static_cast<size_t>(i)] = value;
    char* place = memory.get() + i * bytes_of(dtype);
    const float single = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    if (dtype == DType::Float64) std::memcpy(place, &value, 8);
    if (dtype == DType::Float32) std::memcpy(place, &single, 4);
    if (dtype == DType::BFloat16) {
      const uint16_t half = static_cast<uint16_t>(bits >> 16);
      std::memcpy(place, &half, 2);
    }
    if (dtype == DType::Half) {
      const uint16_t half =
          value == 0 ? 0 : static_cast<uint16_t>((bits >> 16 & 0x8000) | ((bits & 0x7fffffff) - (112u << 23)) >> 13);
      std::memcpy(place, &half, 2);
    }
  }
  double get(int64_t i) const {
    const char* place = memory.get() + i * bytes_of(dtype);
    if (dtype == DType::Float64) {
      double value;
      std::memcpy(&value, place, 8);
      return value;
    }
    float value;
    if (dtype == DType::Float32) {
      std::memcpy(&value, place, 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, place, 2);
    if (dtype == DType::BFloat16) {
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&value, &bits, 4);
      return value;
    }
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return exponent == 31 ? NAN : half & 0x8000 ? -magnitude : magnitude;
  }
  int64_t at(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
  }
  ConstArray readable() const {
    ConstArray array;
    array.data = memory.get();
    std::memcpy(array.stride, stride, sizeof stride);
    return array;
  }
  Array writable() {
    Array array;
    array.data = memory.get();
    std::memcpy(array.stride, stride, sizeof stride);
    return array;
  }

  DType dtype;
  int64_t size[4], stride[4], count;
  std::unique_ptr<char[]> memory;
  std::vector<double> exact;
};

bool matches(const char* name, const Values& got, const std::vector<double>& expected, const Kernels& kernels,
             int round) {
  const double tolerance[4] = {1e-5, 1e-13, 8e-3, 1e-3};
  double size = 0;
  for (double value : expected) size += std::fabs(value) / static_cast<double>(expected.size());
  for (int64_t i = 0; i < got.count; ++i) {
    const double wanted = expected[static_cast<size_t>(i)], value = got.get(i);
    if (!(std::fabs(value - wanted) <= tolerance[static_cast<int>(got.dtype)] * (std::fabs(wanted) + size))) {
      std::printf("%s, round %d: %s[%lld] is %g, expected %g\n", kernels.name, round, name, static_cast<long long>(i),
                  value, wanted);
      return false;
    }
  }
  return true;
}

bool check(const Kernels& kernels, int round) {
  const int64_t widths[] = {1, 2, 3, 5, 8, 16, 17, 33};
  Problem p{};
  p.batch = random_below(3);
  p.heads = 1 + random_below(3);
  p.channels = p.heads * widths[random_below(8)];
  p.height = 1 + random_below(10), p.width = 1 + random_below(24);
  const bool common = random_below(3) == 0;
  p.kernel_y = common ? 3 : 1 + random_below(5), p.kernel_x = common ? 3 : 1 + random_below(5);
  p.stride_y = 1 + random_below(3), p.stride_x = 1 + random_below(3);
  p.dilation_y = 1 + random_below(3), p.dilation_x = 1 + random_below(3);
  if (random_below(12) == 0) p.stride_y = 37, p.stride_x = 41;  // far apart: other kernels
  if (random_below(12) == 0) p.dilation_y = 90, p.dilation_x = 150;
  p.padding_y = p.dilation_y * (p.kernel_y - 1) / 2 + random_below(2);
  p.padding_x = p.dilation_x * (p.kernel_x - 1) / 2 + random_below(2);
  p.upscale_y = random_below(4) == 0 ? 2 : 1, p.upscale_x = random_below(4) == 0 ? 3 : 1;
  p.weight = static_cast<Weight>(random_below(4));
  const int64_t room_y = p.height + 2 * p.padding_y - p.dilation_y * (p.kernel_y - 1) - 1;
  const int64_t room_x = p.width + 2 * p.padding_x - p.dilation_x * (p.kernel_x - 1) - 1;
  if (room_y < 0 || room_x < 0) return true;
  p.grid_height = room_y / p.stride_y + 1, p.grid_width = room_x / p.stride_x + 1;
  if (p.weight == Weight::Channel) {
    p.channels /= p.heads;
    p.heads = 1;
  }

  const DType dtype = static_cast<DType>(random_below(4));
  const bool last = random_below(2) == 1, last_channel = random_below(2) == 1, last_spatial = random_below(2) == 1;
  const int64_t subpixels = p.subpixels();
  Values input({p.batch, p.channels, p.height, p.width}, last, dtype, true);
  Values channel({p.batch, subpixels * p.channels, p.kernel_y, p.kernel_x}, last_channel, dtype, true);
  Values spatial({p.batch, subpixels * p.heads * p.taps(), p.grid_height, p.grid_width}, last_spatial, dtype, true);
  const int64_t out_shape[4] = {p.batch, p.channels, p.grid_height * p.upscale_y, p.grid_width * p.upscale_x};
  Values grad(out_shape, last, dtype, true), output(out_shape, last, dtype, false);
  Values grad_input(input.size, last, dtype, false), grad_channel(channel.size, last_channel, dtype, false);
  Values grad_spatial(spatial.size, last_spatial, dtype, false);
  const bool uses_channel = p.weight != Weight::Spatial, uses_spatial = p.weight != Weight::Channel;
  p.input = input.readable();
  if (uses_channel) p.channel_filter = channel.readable();
  if (uses_spatial) p.spatial_filter = spatial.readable();

  std::vector<double> out(static_cast<size_t>(output.count)), to_input(static_cast<size_t>(input.count));
  std::vector<double> to_channel(static_cast<size_t>(channel.count)), to_spatial(static_cast<size_t>(spatial.count));
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t q = 0; q < subpixels; ++q) {
      for (int64_t c = 0; c < p.channels; ++c) {
        for (int64_t y = 0; y < p.grid_height; ++y) {
          for (int64_t x = 0; x < p.grid_width; ++x) {
            const auto o = static_cast<size_t>(
                output.at(n, c, y * p.upscale_y + q / p.upscale_x, x * p.upscale_x + q % p.upscale_x));
            for (int64_t t = 0; t < p.taps(); ++t) {
              const int64_t in_y = y * p.stride_y - p.padding_y + t / p.kernel_x * p.dilation_y;
              const int64_t in_x = x * p.stride_x - p.padding_x + t % p.kernel_x * p.dilation_x;
              if (in_y < 0 || in_y >= p.height || in_x < 0 || in_x >= p.width) continue;
              const auto i = static_cast<size_t>(input.at(n, c, in_y, in_x));
              const auto k = static_cast<size_t>(channel.at(n, q * p.channels + c, t / p.kernel_x, t % p.kernel_x));
              const int64_t head = c / p.head_channels();
              const auto s = static_cast<size_t>(spatial.at(n, (q * p.heads + head) * p.taps() + t, y, x));
              const double a = channel.exact[k], b = spatial.exact[s], product = grad.exact[o] * input.exact[i];
              const double weight = p.weight == Weight::Product   ? a * b
                                    : p.weight == Weight::Sum     ? a + b
                                    : p.weight == Weight::Channel ? a
                                                                  : b;
              out[o] += weight * input.exact[i];
              to_input[i] += weight * grad.exact[o];
              to_channel[k] += p.weight == Weight::Product ? product * b : product;
              to_spatial[s] += p.weight == Weight::Product ? product * a : product;
            }
          }
        }
      }
    }
  }

  const int index = static_cast<int>(dtype);
  kernels.forward[index](p, output.writable(), parallel_for);
  Gradients gradients;
  const bool wants_input = random_below(4) > 0, wants_channel = uses_channel && random_below(4) > 0;
  const bool wants_spatial = uses_spatial && random_below(4) > 0;
  if (wants_input) gradients.input = grad_input.writable();
  if (wants_channel) gradients.channel_filter = grad_channel.writable();
  if (wants_spatial) gradients.spatial_filter = grad_spatial.writable();
  kernels.backward[index](p, grad.readable(), gradients, parallel_for);
  return matches("output", output, out, kernels, round) &&
         (!wants_input || matches("gradient of input", grad_input, to_input, kernels, round)) &&
         (!wants_channel || matches("gradient of channel filter", grad_channel, to_channel, kernels, round)) &&
         (!wants_spatial || matches("gradient of spatial filter", grad_spatial, to_spatial, kernels, round));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    const Kernels* kernels = find_kernels(name);
    if (kernels == nullptr) {
      std::printf("%s: not on this processor\n", name);
      continue;
    }
    for (int round = 0; round < rounds; ++round) {
      if (!check(*kernels, round)) return 1;
    }
    std::printf("%s: %d rounds\n", name, rounds);
  }
  return 0;
}
