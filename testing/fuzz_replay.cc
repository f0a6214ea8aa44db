// The main() of a fuzz target where libFuzzer is not: the files of the folder
// that --corpus names, in order, each as it is and in some variations that are
// the same at every run. Files that are named are run as they are, no other.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// Of all files together.
constexpr size_t kVariations = 4000;

void Run(const std::string& input) {
  // A block of its own, so that a sanitizer sees what lies behind its end.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::cerr << "cannot read " << path << "\n";
    std::abort();
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

// Some bytes changed, left out, or taken from `other`.
std::string Vary(std::string input, const std::string& other,
                 std::mt19937& random) {
  const auto below = [&](size_t end) { return random() % end; };
  for (size_t changes = 1 + below(3); changes > 0; --changes) {
    const size_t at = below(input.size() + 1);
    switch (below(5)) {
      case 0:
        input.resize(at);
        break;
      case 1:
        input.erase(at, below(8));
        break;
      case 2:
        input.insert(at, other.substr(below(other.size() + 1), below(32)));
        break;
      case 3:
        input.insert(at, 1, static_cast<char>(random()));
        break;
      default:
        if (at < input.size()) input[at] = static_cast<char>(random());
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> files;
  std::string corpus;
  for (std::string_view argument :
       std::vector<std::string_view>(argv + 1, argv + argc)) {
    if (absl::ConsumePrefix(&argument, "--corpus=")) {
      corpus = argument;
    } else if (!absl::StartsWith(argument, "-")) {
      files.emplace_back(argument);
    }
  }
  const bool chosen = !files.empty();
  if (!chosen && std::filesystem::is_directory(corpus)) {
    for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
      files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  std::vector<std::string> inputs;
  for (const std::string& file : files) {
    // The last one printed is the one that failed.
    std::cerr << file << std::endl;
    inputs.push_back(ReadFile(file));
    Run(inputs.back());
  }
  if (chosen) return 0;
  inputs.emplace_back();
  std::mt19937 random;  // NOLINT(cert-msc*): the same at every run.
  for (size_t i = 0; i < kVariations; ++i) {
    const size_t of = i % inputs.size();
    if (i < inputs.size()) {
      std::cerr << "variations of "
                << (of < files.size() ? files[of] : "no input") << std::endl;
    }
    Run(Vary(inputs[of], inputs[random() % inputs.size()], random));
  }
  std::cerr << files.size() << " inputs and " << kVariations
            << " variations of them\n";
  return 0;
}
