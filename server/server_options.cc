#include "ward/server/server_options.h"

namespace ward {
namespace {

StartMode default_start_mode = StartMode::kFork;

}  // namespace

StartMode DefaultStartMode() { return default_start_mode; }

void SetDefaultStartModeForTesting(StartMode mode) {
  default_start_mode = mode;
}

}  // namespace ward
