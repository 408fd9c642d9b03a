// Vectors of the tier's width, with the loads and stores that convert. Included inside the tier's namespace, after the
// target pragma, with DDF_VECTOR_BYTES set. GCC's and Clang's vector extensions: `a * b + c` is one fused instruction
// where the target has it.

#define DDF_ALWAYS_INLINE inline __attribute__((always_inline))
#define DDF_INLINE static DDF_ALWAYS_INLINE
// For the hot loops: inlined into what calls them, they would share its registers and reload their own.
#define DDF_APART static __attribute__((noinline))

template <class T, int bytes>
struct VectorOf;
template <int bytes>
struct VectorOf<float, bytes> {
  typedef float type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorOf<double, bytes> {
  typedef double type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorOf<uint16_t, bytes> {
  typedef uint16_t type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorOf<uint32_t, bytes> {
  typedef uint32_t type __attribute__((vector_size(bytes)));
};

// The type in which values of storage type S are combined and summed.
template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

template <class T>
using Vector = typename VectorOf<T, DDF_VECTOR_BYTES>::type;
template <class T>
constexpr int64_t lanes = DDF_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

template <class T>
DDF_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // GCC's idiom: a scalar operand is broadcast, and x - 0 is x, -0 included
}

// --- scalars -----------------------------------------------------------------------------------------------

DDF_INLINE float load_scalar(const float* p) {
  return *p;
}
DDF_INLINE double load_scalar(const double* p) {
  return *p;
}
DDF_INLINE float load_scalar(const BFloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
DDF_INLINE float load_scalar(const Half* p) {
  // Moved to the float's place, the half's exponent is 112 too small; the product mends it and normalises subnormals.
  const uint32_t magnitude = static_cast<uint32_t>(p->bits & 0x7fff) << 13;
  const uint32_t scale_bits = (254 - 15) << 23;  // 2^112
  float value, scale;
  std::memcpy(&value, &magnitude, sizeof value);
  std::memcpy(&scale, &scale_bits, sizeof scale);
  value *= scale;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((p->bits & 0x7c00) == 0x7c00) bits = 0x7f800000 | magnitude;  // infinity and NaN
  bits |= static_cast<uint32_t>(p->bits & 0x8000) << 16;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

DDF_INLINE void store_scalar(float* p, float value) {
  *p = value;
}
DDF_INLINE void store_scalar(double* p, double value) {
  *p = value;
}
DDF_INLINE void store_scalar(BFloat16* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  p->bits = nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest even
}
DDF_INLINE void store_scalar(Half* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  uint32_t half;
  if (bits > 0x7f800000) {
    half = 0x7e00;  // NaN
  } else if (bits >= 0x477ff000) {
    half = 0x7c00;  // rounds to infinity
  } else if (bits < 0x38800000) {
    // Subnormal: adding 1/2 lets the float unit round to nearest even at the half's last place, 2^-24.
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&half, &magnitude, sizeof half);
    half -= 0x3f000000;
  } else {
    half = (bits + 0xfff + ((bits >> 13) & 1) - 0x38000000) >> 13;
  }
  p->bits = static_cast<uint16_t>(sign | half);
}

// --- whole vectors -----------------------------------------------------------------------------------------

template <class T>
DDF_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
DDF_INLINE void store(T* p, Vector<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// Rounded to nearest even in integers; a NaN stays one. The narrow and the wide vector are not left to
// __builtin_convertvector where the instruction set has the conversion: the compiler takes it apart.
#if DDF_VECTOR_BYTES == 64
DDF_INLINE Vector<float> load(const BFloat16* p) {
  __m256i narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  return (Vector<float>)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, narrow), 16);
}
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  const Vector<uint32_t> bits = (Vector<uint32_t>)v;
  const Vector<uint32_t> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_mov_epi32((__m512i)rounded, nan, _mm512_set1_epi32(0x7fc0));
  const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, chosen);
  std::memcpy(p, &narrow, sizeof narrow);
}
#else
DDF_INLINE Vector<float> load(const BFloat16* p) {
  typename VectorOf<uint16_t, DDF_VECTOR_BYTES / 2>::type narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  const Vector<uint32_t> bits = __builtin_convertvector(narrow, Vector<uint32_t>) << 16;
  Vector<float> v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  Vector<uint32_t> bits;
  std::memcpy(&bits, &v, sizeof bits);
  const Vector<uint32_t> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto nan = (bits & 0x7fffffff) > 0x7f800000;
  const Vector<uint32_t> chosen = nan ? (Vector<uint32_t>{} + 0x7fc0) : rounded;
  const auto narrow = __builtin_convertvector(chosen, typename VectorOf<uint16_t, DDF_VECTOR_BYTES / 2>::type);
  std::memcpy(p, &narrow, sizeof narrow);
}
#endif

#if DDF_VECTOR_BYTES == 64
DDF_INLINE Vector<float> load(const Half* p) {
  __m256i bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Vector<float>)_mm512_maskz_cvtph_ps(0xffff, bits);
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  const __m256i bits = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &bits, sizeof bits);
}
#elif DDF_VECTOR_BYTES == 32
DDF_INLINE Vector<float> load(const Half* p) {
  __m128i bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Vector<float>)_mm256_cvtph_ps(bits);
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  const __m128i bits = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &bits, sizeof bits);
}
#else
DDF_INLINE Vector<float> load(const Half* p) {
  Vector<float> v;
  for (int64_t i = 0; i < lanes<float>; ++i) v[i] = load_scalar(p + i);
  return v;
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  for (int64_t i = 0; i < lanes<float>; ++i) store_scalar(p + i, v[i]);
}
#endif

// --- the first `count` lanes: nothing beyond them is read or written ---------------------------------------

template <class S>
DDF_INLINE Vector<Compute<S>> load_first(const S* p, int64_t count) {
  Compute<S> values[lanes<Compute<S>>] = {};
  for (int64_t i = 0; i < count; ++i) values[i] = load_scalar(p + i);
  return load(values);
}
template <class S>
DDF_INLINE void store_first(S* p, Vector<Compute<S>> v, int64_t count) {
  Compute<S> values[lanes<Compute<S>>];
  store(values, v);
  for (int64_t i = 0; i < count; ++i) store_scalar(p + i, values[i]);
}

#if DDF_VECTOR_BYTES == 64
DDF_INLINE Vector<float> load_first(const float* p, int64_t count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
DDF_INLINE void store_first(float* p, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
}
#elif DDF_VECTOR_BYTES == 32
DDF_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
DDF_INLINE Vector<float> load_first(const float* p, int64_t count) {
  return (Vector<float>)_mm256_maskload_ps(p, first_lanes(count));
}
DDF_INLINE void store_first(float* p, Vector<float> v, int64_t count) {
  _mm256_maskstore_ps(p, first_lanes(count), (__m256)v);
}
#endif

// --- lanes kept or dropped by a mask of all ones or all zeros ----------------------------------------------

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  typedef uint32_t type __attribute__((vector_size(DDF_VECTOR_BYTES)));
};
template <>
struct BitsOf<double> {
  typedef uint64_t type __attribute__((vector_size(DDF_VECTOR_BYTES)));
};
template <class T>
using Bits = typename BitsOf<T>::type;

template <class T>
DDF_INLINE Bits<T> load_bits(const T* p) {
  Bits<T> bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}
template <class V, class B>
DDF_INLINE V masked(V value, B keep) {
  return (V)((B)value & keep);  // a cast between vectors of one size keeps the bits
}

// The sum of all lanes, by halves: short chains, and always the same order.
template <class T, int bytes>
DDF_INLINE T sum_lanes(typename VectorOf<T, bytes>::type v) {
  if constexpr (bytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    typename VectorOf<T, bytes / 2>::type low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return sum_lanes<T, bytes / 2>(low + high);
  }
}
template <class T>
DDF_INLINE T sum(Vector<T> v) {
  return sum_lanes<T, DDF_VECTOR_BYTES>(v);
}

// As many sums at once as a vector has lanes, with a fraction of the shuffles that they would take one by one. A vector
// holds `blocks` partial sums side by side; fold<blocks> of two such vectors adds the halves of each block and leaves
// 2 * blocks of half the length: a's, then b's.
template <class T, int64_t blocks, bool upper>
constexpr int fold_index(int64_t lane) {
  const int64_t half = lanes<T> / (2 * blocks), block = lane / half;
  const int64_t source = block < blocks ? 0 : lanes<T>;
  return static_cast<int>(source + block % blocks * 2 * half + (upper ? half : 0) + lane % half);
}
template <class T, int64_t blocks, size_t... lane>
DDF_INLINE Vector<T> fold_lanes(Vector<T> a, Vector<T> b, std::index_sequence<lane...>) {
  return __builtin_shufflevector(a, b, fold_index<T, blocks, false>(lane)...) +
         __builtin_shufflevector(a, b, fold_index<T, blocks, true>(lane)...);
}
template <class T, int64_t blocks>
DDF_INLINE Vector<T> fold(Vector<T> a, Vector<T> b) {
  return fold_lanes<T, blocks>(a, b, std::make_index_sequence<static_cast<size_t>(lanes<T>)>{});
}
// The sums of `count` vectors in a row, a power of two of them, side by side.
template <class T, int64_t count>
DDF_INLINE Vector<T> fold_all(const T* vectors) {
  if constexpr (count == 1) {
    return load(vectors);
  } else {
    constexpr int64_t half = count / 2;
    return fold<T, half>(fold_all<T, half>(vectors), fold_all<T, half>(vectors + half * lanes<T>));
  }
}

// sums[i] = the sum of the lanes of vector i, for i < count. Reads whole groups of as many vectors as there are lanes.
template <class T>
static void sum_each(const T* vectors, int64_t count, T* sums) {
  constexpr int64_t width = lanes<T>;
  int64_t i = 0;
  for (; i + width <= count; i += width) store(sums + i, fold_all<T, width>(vectors + i * width));
  if (i < count) store_first(sums + i, fold_all<T, width>(vectors + i * width), count - i);
}

// --- rows: any distance between elements, vectors where it is one ------------------------------------------

template <class S>
static void load_row(const S* source, int64_t stride, Compute<S>* target, int64_t count) {
  constexpr int64_t width = lanes<Compute<S>>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + width <= count; i += width) store(target + i, load(source + i));
    if (i < count) store_first(target + i, load_first(source + i, count - i), count - i);
  } else {
    for (; i < count; ++i) target[i] = load_scalar(source + i * stride);
  }
}
template <class S>
static void store_row(const Compute<S>* source, S* target, int64_t stride, int64_t count) {
  constexpr int64_t width = lanes<Compute<S>>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + width <= count; i += width) store(target + i, load(source + i));
    if (i < count) store_first(target + i, load_first(source + i, count - i), count - i);
  } else {
    for (; i < count; ++i) store_scalar(target + i * stride, source[i]);
  }
}

// --- weights -----------------------------------------------------------------------------------------------

// A tap's weight of the two filters' taps; `Channel` and `Spatial` do not read the other operand.
template <Weight weight, class A, class B>
DDF_INLINE auto combine(const A& channel, const B& spatial) {
  if constexpr (weight == Weight::Product) {
    return channel * spatial;
  } else if constexpr (weight == Weight::Sum) {
    return channel + spatial;
  } else if constexpr (weight == Weight::Channel) {
    return channel;
  } else {
    return spatial;
  }
}
