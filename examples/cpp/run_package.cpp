// Runs a model that `ddfnet export --format aoti` compiled, in a process without Python.
//
//     run_package LIBRARY PACKAGE BATCH CHANNELS HEIGHT WIDTH
//
// LIBRARY is what `ddfnet.ops.library_path()` returns: loading it registers the operator and its CPU kernels. The input
// counts up from 0 to 1; the output's shape and sum are printed.

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: run_package LIBRARY PACKAGE BATCH CHANNELS HEIGHT WIDTH\n";
    return 2;
  }
  if (dlopen(argv[1], RTLD_NOW) == nullptr) {
    std::cerr << dlerror() << '\n';
    return 1;
  }
  std::vector<int64_t> shape;
  for (int i = 3; i < argc; ++i) shape.push_back(std::atoll(argv[i]));
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;

  torch::inductor::AOTIModelPackageLoader model(argv[2]);
  const std::vector<at::Tensor> outputs = model.run({at::linspace(0, 1, count).reshape(shape)});
  std::cout << outputs[0].sizes() << ' ' << std::setprecision(9) << outputs[0].sum(at::kDouble).item<double>() << '\n';
  return 0;
}
