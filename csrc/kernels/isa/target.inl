// The frame of every file that is compiled once for each instruction set (the .inl files), as highway writes it:
//
//   DDF_BEFORE_NAMESPACE();
//   namespace ddfnet::DDF_ISA {
//   ...
//   }  // namespace ddfnet::DDF_ISA
//   DDF_AFTER_NAMESPACE();
//
// Files are included before the frame opens, never inside of it. An instruction set is one file isa/NAME.cpp, which is
// one translation unit, so `#pragma once` is enough of a guard. It defines
//
//   DDF_ISA         the name, which is also the namespace
//   DDF_ISA_SIMD    its file in simd/
//   DDF_ISA_TARGET  the compiler's target string, where it needs more than the build's own flags
//
// No standard containers inside of the frame: a template of theirs, instantiated under the target, could be the one
// copy that the linker keeps for the whole library, and would then run on processors without that instruction set.
#pragma once

// An editor that opens a single .inl file sees it as the baseline does.
#if !defined(DDF_ISA)
#define DDF_ISA baseline
#define DDF_ISA_SIMD "portable.inl"
#endif

#define DDF_STRINGIZE_TEXT(text) #text
#define DDF_STRINGIZE(text) DDF_STRINGIZE_TEXT(text)
#define DDF_PRAGMA_TEXT(text) _Pragma(#text)
#define DDF_PRAGMA(text) DDF_PRAGMA_TEXT(text)

#if !defined(DDF_ISA_TARGET)
#define DDF_PUSH_TARGET
#define DDF_POP_TARGET
#elif defined(__clang__)
#define DDF_PUSH_TARGET DDF_PRAGMA(clang attribute push(__attribute__((target(DDF_ISA_TARGET))), apply_to = function))
#define DDF_POP_TARGET DDF_PRAGMA(clang attribute pop)
#else
#define DDF_PUSH_TARGET DDF_PRAGMA(GCC push_options) DDF_PRAGMA(GCC target(DDF_ISA_TARGET))
#define DDF_POP_TARGET DDF_PRAGMA(GCC pop_options)
#endif

// The declaration lets a semicolon follow.
#define DDF_BEFORE_NAMESPACE() \
  DDF_PUSH_TARGET              \
  static_assert(true, "")
#define DDF_AFTER_NAMESPACE() \
  DDF_POP_TARGET              \
  static_assert(true, "")

#define DDF_ALWAYS_INLINE inline __attribute__((always_inline))
#define DDF_INLINE static DDF_ALWAYS_INLINE
// For the hot loops: inlined into their callers, they would share registers with them and reload their own.
#define DDF_NOINLINE static __attribute__((noinline))
