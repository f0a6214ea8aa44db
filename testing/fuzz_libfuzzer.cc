// Tells libFuzzer, which has main(), where its files are; see ward_fuzz_test.

#include <cstddef>
#include <filesystem>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ward/testing/environment_variable.h"
#include "ward/testing/simulator/exit_guard.h"

namespace {

using ::ward::testing::EnvironmentVariable;
using ::ward::testing::ExitGuard;

// For what it finds: where the next run of the same target finds it again.
std::string FolderFor(std::string_view corpus) {
  std::string root(EnvironmentVariable("TEST_UNDECLARED_OUTPUTS_DIR"));
  // `bazel run` sets both.
  if (root.empty() ||
      !EnvironmentVariable("BUILD_WORKSPACE_DIRECTORY").empty()) {
    const std::string_view cache = EnvironmentVariable("XDG_CACHE_HOME");
    root = cache.empty() ? absl::StrCat(EnvironmentVariable("HOME"), "/.cache")
                         : std::string(cache);
  }
  return absl::StrCat(root, "/ward/fuzz/", corpus);
}

}  // namespace

// libFuzzer's interface (llvm.org/docs/LibFuzzer.html).
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  ExitGuard::LeaveToLibFuzzer();
  // libFuzzer keeps them.
  static std::vector<std::string>* const arguments =
      new std::vector<std::string>{(*argv)[0]};
  static std::vector<char*>* const pointers = new std::vector<char*>;
  std::string corpus;
  bool chosen = false;
  bool merges = false;
  std::vector<std::string> given;
  for (std::string_view argument :
       std::vector<std::string_view>(*argv + 1, *argv + *argc)) {
    if (absl::ConsumePrefix(&argument, "--corpus=")) {
      corpus = argument;
    } else if (absl::ConsumePrefix(&argument, "--dictionary=")) {
      arguments->push_back(absl::StrCat("-dict=", argument));
    } else {
      chosen = chosen || !absl::StartsWith(argument, "-");
      merges = merges || argument == "-merge=1";
      given.emplace_back(argument);
    }
  }
  // Files that are named are run, and nothing else is done.
  if (!chosen) {
    const std::string folder = FolderFor(corpus);
    const std::string found = folder + "/found";
    std::filesystem::create_directories(found);
    const std::string_view workspace =
        EnvironmentVariable("BUILD_WORKSPACE_DIRECTORY");
    if (merges && !workspace.empty()) {
      // Back into the sources, as few and as short as cover the same.
      const std::string kept = absl::StrCat(workspace, "/", corpus);
      const std::string before = folder + "/before";
      std::filesystem::remove_all(before);
      std::filesystem::create_directories(kept);
      // Copied: they may be on two file systems.
      std::filesystem::copy(kept, before);
      std::filesystem::remove_all(kept);
      std::filesystem::create_directories(kept);
      // Not how often: that takes several times as many.
      arguments->emplace_back("-use_counters=0");
      for (const std::string& folder : {kept, before, found}) {
        arguments->push_back(folder);
      }
    } else {
      arguments->push_back(found);
      if (std::filesystem::is_directory(corpus)) arguments->push_back(corpus);
      arguments->push_back(absl::StrCat("-artifact_prefix=", folder, "/"));
      std::cerr << "What is found goes to " << folder << "\n";
    }
  }
  for (const std::string& argument : given) arguments->push_back(argument);
  for (std::string& argument : *arguments) pointers->push_back(argument.data());
  *argc = static_cast<int>(pointers->size());
  pointers->push_back(nullptr);
  *argv = pointers->data();
  return 0;
}
