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
    if (exponent == 31 && mantissa != 0) return NAN;
    const double magnitude = exponent == 31  ? HUGE_VAL
                             : exponent == 0 ? std::ldexp(mantissa, -24)
                                             : std::ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
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
             int round, double allowance = 1) {
  const double tolerance[4] = {1e-5, 1e-13, 8e-3, 1e-3};
  double size = 0;
  for (double value : expected) size += std::fabs(value) / static_cast<double>(expected.size());
  for (int64_t i = 0; i < got.count; ++i) {
    const double wanted = expected[static_cast<size_t>(i)], value = got.get(i);
    if (!(std::fabs(value - wanted) <=
          allowance * tolerance[static_cast<int>(got.dtype)] * (std::fabs(wanted) + size))) {
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
  const bool common = random_below(2) == 0, square = random_below(3) == 0;  // kernels with loops of their own
  p.kernel_y = common ? 3 : 1 + random_below(5), p.kernel_x = common ? 3 : 1 + random_below(5);
  if (square && !common) p.kernel_y = p.kernel_x = 5 + 2 * random_below(2);
  p.stride_y = 1 + random_below(square ? 2 : 3), p.stride_x = 1 + random_below(square ? 2 : 3);
  p.dilation_y = 1 + random_below(square ? 1 : 3), p.dilation_x = 1 + random_below(square ? 1 : 3);
  if (random_below(6) == 0) p.dilation_y = 1 + random_below(25), p.dilation_x = 1 + random_below(35);
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

// Returns the value of a half precision type that is nearest to `value`, ties to even; infinity beyond the largest.
double round_to(double value, DType dtype) {
  const int digits = dtype == DType::Half ? 11 : 8, least = dtype == DType::Half ? -24 : -133;
  const double limit = dtype == DType::Half ? 65520 : std::ldexp(511, 119);
  if (!std::isfinite(value) || std::fabs(value) >= limit)
    return std::isnan(value) ? value : std::copysign(HUGE_VAL, value);
  int exponent;
  std::frexp(value, &exponent);
  const int last = exponent - digits > least ? exponent - digits : least;  // place of the last digit
  return std::ldexp(std::nearbyint(std::ldexp(value, -last)), last);
}

// All 65536 values of both half precision types, filtered by one tap: the products are exact in float, so that every
// output is the product rounded once.
bool check_conversions(const Kernels& kernels) {
  for (const DType dtype : {DType::BFloat16, DType::Half}) {
    for (const bool channels_last : {true, false}) {
      Problem p{};
      p.batch = p.heads = p.height = p.width = p.grid_height = p.grid_width = 1;
      p.kernel_y = p.kernel_x = p.stride_y = p.stride_x = p.dilation_y = p.dilation_x = p.upscale_y = p.upscale_x = 1;
      p.channels = 1 << 16;
      p.weight = Weight::Channel;
      if (!channels_last) p.channels = 1, p.width = p.grid_width = 1 << 16;
      Values input({1, p.channels, 1, p.width}, channels_last, dtype, true);
      Values channel({1, p.channels, 1, 1}, channels_last, dtype, true);
      Values output({1, p.channels, 1, p.width}, channels_last, dtype, false);
      for (int64_t i = 0; i < input.count; ++i) {
        const uint16_t bits = static_cast<uint16_t>(i);
        std::memcpy(input.memory.get() + i * 2, &bits, 2);
      }
      for (int64_t i = 0; i < channel.count; ++i) channel.set(i, random_below(2) == 0 ? 1.3125 : 1);
      p.input = input.readable(), p.channel_filter = channel.readable();
      kernels.forward[static_cast<int>(dtype)](p, output.writable(), parallel_for);
      for (int64_t i = 0; i < input.count; ++i) {
        const double expected = round_to(input.get(i) * channel.get(channels_last ? i : 0), dtype),
                     value = output.get(i);
        if (value == expected || (std::isnan(value) && std::isnan(expected))) continue;
        std::printf("%s: value %llx comes back as %g, expected %g\n", kernels.name, static_cast<long long>(i), value,
                    expected);
        return false;
      }
    }
  }
  return true;
}

std::vector<float> random_floats(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random_value());
  return values;
}

// FilterNorm of the taps at values[0, taps), with their scale and shift.
void normalise(double* values, int64_t taps, const float* scale, const float* shift, double gain, double eps) {
  double mean = 0, variance = 0;
  for (int64_t t = 0; t < taps; ++t) mean += values[t] / static_cast<double>(taps);
  for (int64_t t = 0; t < taps; ++t)
    variance += (values[t] - mean) * (values[t] - mean) / static_cast<double>(taps - 1);
  const double deviation = std::sqrt(variance == 0 ? 1 : variance) + eps;
  for (int64_t t = 0; t < taps; ++t) {
    values[t] =
        (values[t] - mean) / deviation * (scale == nullptr ? gain : scale[t]) + (shift == nullptr ? 0 : shift[t]);
  }
}

// Forward and backward, against the formula and its derivative.
bool check_filter_norm(const Kernels& kernels, int round) {
  const int64_t sizes[] = {1, 2, 3, 7, 16, 17, 33};
  const int64_t batch = random_below(3), filters = sizes[random_below(7)], taps = 2 + random_below(9);
  const int64_t pixels = sizes[random_below(7)];
  const DType dtype = random_below(2) == 0 ? DType::Float32 : DType::Float64;
  const int64_t shape[4] = {batch, filters * taps, pixels, 1};
  const bool channels_last = random_below(2) == 0, scaled = random_below(2) == 0;
  Values input(shape, channels_last, dtype, true), grad_output(shape, random_below(2) == 0, dtype, true);
  Values output(shape, channels_last, dtype, false), grad_input(shape, channels_last, dtype, false);
  Values products(shape, channels_last, dtype, false);
  const std::vector<float> scale = random_floats(filters * taps), shift = random_floats(filters * taps);
  const std::vector<double> wide_scale(scale.begin(), scale.end()), wide_shift(shift.begin(), shift.end());
  const bool in_double = dtype == DType::Float64;
  const void* scales = in_double ? static_cast<const void*>(wide_scale.data()) : scale.data();
  const void* shifts = in_double ? static_cast<const void*>(wide_shift.data()) : shift.data();
  const double gain = 0.5, eps = 1e-3;
  const FilterNorm p = {batch, filters, taps, pixels, scaled ? scales : nullptr, scaled ? shifts : nullptr, gain, eps};

  const auto count = static_cast<size_t>(output.count);
  std::vector<double> expected(count), gradient(count), product(count);
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t f = 0; f < filters; ++f) {
      for (int64_t x = 0; x < pixels; ++x) {
        auto place = [&](const Values& values, int64_t t) { return values.at(n, f * taps + t, x, 0); };
        std::vector<double> centered(static_cast<size_t>(taps)), g(static_cast<size_t>(taps));
        double mean = 0, variance = 0, grad_mean = 0, dot = 0;
        for (int64_t t = 0; t < taps; ++t) mean += input.get(place(input, t)) / static_cast<double>(taps);
        for (int64_t t = 0; t < taps; ++t) {
          const auto i = static_cast<size_t>(t);
          centered[i] = input.get(place(input, t)) - mean;
          variance += centered[i] * centered[i] / static_cast<double>(taps - 1);
          const double own_scale = scaled ? wide_scale[static_cast<size_t>(f * taps + t)] : gain;
          g[i] = grad_output.get(place(grad_output, t)) * own_scale;
          grad_mean += g[i] / static_cast<double>(taps);
          dot += g[i] * centered[i];
        }
        const double root = std::sqrt(variance < 1e-20 ? 1 : variance), inverse = 1 / (root + eps);
        for (int64_t t = 0; t < taps; ++t) {
          const auto i = static_cast<size_t>(t), c = static_cast<size_t>(f * taps + t);
          const double own_scale = scaled ? wide_scale[c] : gain, own_shift = scaled ? wide_shift[c] : 0;
          expected[static_cast<size_t>(place(output, t))] = centered[i] * inverse * own_scale + own_shift;
          product[static_cast<size_t>(place(products, t))] =
              grad_output.get(place(grad_output, t)) * centered[i] * inverse;
          gradient[static_cast<size_t>(place(grad_input, t))] =
              (g[i] - grad_mean) * inverse -
              centered[i] * dot * inverse * inverse / (root * static_cast<double>(taps - 1));
        }
      }
    }
  }
  const auto index = static_cast<size_t>(dtype);
  kernels.filter_norm[index](p, input.readable(), output.writable(), parallel_for);
  kernels.filter_norm_backward[index](p, grad_output.readable(), input.readable(), grad_input.writable(),
                                      products.writable(), parallel_for);
  // Deviations may be small, and magnify what the type has rounded.
  return matches("FilterNorm", output, expected, kernels, round, 50) &&
         matches("gradient of FilterNorm", grad_input, gradient, kernels, round, 50) &&
         matches("products of FilterNorm", products, product, kernels, round, 50);
}

bool check_layer(const Kernels& kernels, int round) {
  const int64_t widths[] = {1, 2, 3, 5, 8, 16, 17, 33};
  Problem p{};
  p.batch = 1 + random_below(2), p.heads = 1 + random_below(2), p.channels = p.heads * widths[random_below(8)];
  if (p.channels == 1) p.channels = 2, p.heads = 1;
  p.height = 1 + random_below(8), p.width = 1 + random_below(20);
  p.kernel_y = 1 + 2 * random_below(3), p.kernel_x = 3;
  p.stride_y = 1 + random_below(2), p.stride_x = 1 + random_below(2), p.dilation_y = p.dilation_x = 1;
  p.padding_y = p.kernel_y / 2, p.padding_x = 1, p.upscale_y = p.upscale_x = 1;
  p.grid_height = (p.height - 1) / p.stride_y + 1, p.grid_width = (p.width - 1) / p.stride_x + 1;
  p.weight = random_below(2) == 0 ? Weight::Product : Weight::Sum;
  const int64_t taps = p.taps(), outputs = p.heads * taps, filters = p.channels * taps, width = 1 + random_below(20);
  Values input({p.batch, p.channels, p.height, p.width}, true, DType::Float32, true);
  Values output({p.batch, p.channels, p.grid_height, p.grid_width}, true, DType::Float32, false);
  p.input = input.readable();
  const std::vector<float> spatial_weight = random_floats(outputs * p.channels), spatial_bias = random_floats(outputs),
                           reduce_weight = random_floats(width * p.channels), reduce_bias = random_floats(width),
                           expand_weight = random_floats(filters * width), expand_bias = random_floats(filters),
                           spatial_scale = random_floats(outputs), channel_scale = random_floats(filters),
                           channel_shift = random_floats(filters), scale = random_floats(p.channels),
                           shift = random_floats(p.channels);
  const bool learnt = random_below(2) == 0, epilogue = random_below(2) == 0;
  Layer layer{spatial_weight.data(),
              spatial_bias.data(),
              reduce_weight.data(),
              reduce_bias.data(),
              expand_weight.data(),
              expand_bias.data(),
              width,
              {learnt ? spatial_scale.data() : nullptr, nullptr, 0.5f, 1e-3f},
              {channel_scale.data(), learnt ? channel_shift.data() : nullptr, 0, 1e-3f},
              {}};
  if (epilogue) layer.epilogue = {scale.data(), shift.data(), true};

  std::vector<double> expected(static_cast<size_t>(output.count));
  for (int64_t n = 0; n < p.batch; ++n) {
    std::vector<double> hidden(static_cast<size_t>(width)), channel(static_cast<size_t>(filters));
    for (int64_t j = 0; j < width; ++j) {
      double sum = reduce_bias[static_cast<size_t>(j)];
      for (int64_t c = 0; c < p.channels; ++c) {
        double mean = 0;
        for (int64_t i = 0; i < p.height * p.width; ++i) {
          mean += input.get(input.at(n, c, i / p.width, i % p.width)) / static_cast<double>(p.height * p.width);
        }
        sum += reduce_weight[static_cast<size_t>(j * p.channels + c)] * mean;
      }
      hidden[static_cast<size_t>(j)] = sum < 0 ? 0 : sum;
    }
    for (int64_t i = 0; i < filters; ++i) {
      double sum = expand_bias[static_cast<size_t>(i)];
      for (int64_t j = 0; j < width; ++j) {
        sum += expand_weight[static_cast<size_t>(i * width + j)] * hidden[static_cast<size_t>(j)];
      }
      channel[static_cast<size_t>(i)] = sum;
    }
    for (int64_t c = 0; c < p.channels; ++c) {
      normalise(channel.data() + c * taps, taps, channel_scale.data() + c * taps,
                learnt ? channel_shift.data() + c * taps : nullptr, 0, 1e-3);
    }
    for (int64_t y = 0; y < p.grid_height; ++y) {
      for (int64_t x = 0; x < p.grid_width; ++x) {
        std::vector<double> spatial(static_cast<size_t>(outputs));
        for (int64_t k = 0; k < outputs; ++k) {
          double sum = spatial_bias[static_cast<size_t>(k)];
          for (int64_t c = 0; c < p.channels; ++c) {
            sum += spatial_weight[static_cast<size_t>(k * p.channels + c)] *
                   input.get(input.at(n, c, y * p.stride_y, x * p.stride_x));
          }
          spatial[static_cast<size_t>(k)] = sum;
        }
        for (int64_t head = 0; head < p.heads; ++head) {
          normalise(spatial.data() + head * taps, taps, learnt ? spatial_scale.data() + head * taps : nullptr, nullptr,
                    0.5, 1e-3);
        }
        for (int64_t c = 0; c < p.channels; ++c) {
          double sum = 0;
          for (int64_t t = 0; t < taps; ++t) {
            const int64_t in_y = y * p.stride_y - p.padding_y + t / p.kernel_x;
            const int64_t in_x = x * p.stride_x - p.padding_x + t % p.kernel_x;
            if (in_y < 0 || in_y >= p.height || in_x < 0 || in_x >= p.width) continue;
            const double a = channel[static_cast<size_t>(c * taps + t)];
            const double b = spatial[static_cast<size_t>(c / p.head_channels() * taps + t)];
            sum += (p.weight == Weight::Product ? a * b : a + b) * input.get(input.at(n, c, in_y, in_x));
          }
          if (epilogue) sum = sum * scale[static_cast<size_t>(c)] + shift[static_cast<size_t>(c)];
          expected[static_cast<size_t>(output.at(n, c, y, x))] = epilogue && sum < 0 ? 0 : sum;
        }
      }
    }
  }
  kernels.layer(p, layer, output.writable(), parallel_for);
  // The norms divide by deviations that may be small, and magnify what float has rounded.
  return matches("layer", output, expected, kernels, round, 20);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  for (const Kernels* kernels : supported_kernels()) {
    if (!check_conversions(*kernels)) return 1;
    for (int round = 0; round < rounds; ++round) {
      if (!check(*kernels, round) || !check_layer(*kernels, round)) return 1;
      if (!check_filter_norm(*kernels, round)) return 1;
    }
    std::printf("%s: %d rounds\n", kernels->name, rounds);
  }
  return 0;
}
