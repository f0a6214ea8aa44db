#include "ward/testing/simulator/strategy.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace ward::testing {

size_t Choice::OptionOf(int thread) const {
  const auto* const found = std::find(threads.begin(), threads.end(), thread);
  return found == threads.end() ? 0
                                : static_cast<size_t>(found - threads.begin());
}

std::string FormatDeviations(const Deviations& deviations) {
  return absl::StrJoin(deviations, ",", absl::PairFormatter("="));
}

std::optional<Deviations> ParseDeviations(std::string_view text) {
  Deviations deviations;
  for (const std::string_view entry :
       absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string_view, std::string_view> parts =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    uint32_t step;
    uint32_t option;
    if (!absl::SimpleAtoi(parts.first, &step) ||
        !absl::SimpleAtoi(parts.second, &option)) {
      return std::nullopt;
    }
    deviations[step] = option;
  }
  return deviations;
}

size_t ReplayStrategy::Choose(const Choice& choice) {
  const auto found = deviations_.find(step_++);
  return found == deviations_.end() || found->second >= choice.options
             ? 0
             : found->second;
}

}  // namespace ward::testing
