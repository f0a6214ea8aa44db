// Policy: no text makes it allow what no line of it allows.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/examples/file_broker/policy.h"
#include "ward/testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Access = Policy::Access;
  ward::testing::FuzzInput in(data, size);
  const std::string path(in.String());
  const std::string text(in.Rest());
  const absl::StatusOr<Policy> policy = Policy::Parse(text);
  if (!policy.ok()) {
    WARD_FUZZ_CHECK(!Policy::Parse(absl::StrCat("read *\n", text)).ok(),
                    "a line before it mends it");
    return 0;
  }
  for (const Access access : {Access::kRead, Access::kWrite}) {
    const bool allowed = policy->Allows(access, path);
    const std::string word = access == Access::kRead ? "read" : "write";
    WARD_FUZZ_CHECK(!allowed || text.find(word) != std::string::npos,
                    word << " is allowed, of which the policy does not speak");
    const auto with = [&](const std::string& before, const std::string& after) {
      const absl::StatusOr<Policy> other =
          Policy::Parse(absl::StrCat(before, "\n", text, "\n", after));
      WARD_FUZZ_CHECK(other.ok(), other.status());
      return other->Allows(access, path);
    };
    WARD_FUZZ_CHECK(!with("deny *", ""), "although all is denied first");
    WARD_FUZZ_CHECK(with(absl::StrCat(word, " *"), ""), "allowed first");
    // The first that fits decides.
    WARD_FUZZ_CHECK(with("# nothing", "deny *") == allowed, "denied last");
    WARD_FUZZ_CHECK(!allowed || with("", absl::StrCat(word, " *")),
                    "allowed twice");
  }
  WARD_FUZZ_CHECK(!Policy().Allows(Access::kRead, path), "no policy");
  return 0;
}
