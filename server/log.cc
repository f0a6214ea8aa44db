#include "ward/server/log.h"

#include <atomic>

namespace ward {
namespace {

std::atomic<LogFunction> log_function{nullptr};

}  // namespace

void SetLogFunction(LogFunction function) { log_function = function; }

LogFunction GetLogFunction() { return log_function; }

}  // namespace ward
