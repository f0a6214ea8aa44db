// A worker: a process that was forked from one in which the application is
// loaded already.

#ifndef WARD_EXAMPLES_SPAWN_SERVER_WORKER_H_
#define WARD_EXAMPLES_SPAWN_SERVER_WORKER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ward/server/abstract_server.h"
#include "ward/server/method.h"

// What takes long to load.
class Application {
 public:
  // All primes below 200,000, found anew.
  static std::shared_ptr<const Application> Load();

  bool IsPrime(uint32_t number) const {
    return number < sieve_.size() && sieve_[number];
  }

  // Different for each Load.
  const std::string& load_id() const { return load_id_; }

 private:
  std::vector<bool> sieve_;
  std::string load_id_;
};

inline constexpr ward::Method<uint32_t, bool> kIsPrime{"is_prime"};

// A worker's application's load_id(), and its pid.
inline constexpr ward::Method<void, ward::Arguments<std::string, int>>
    kIdentify{"identify"};

class Worker : public ward::AbstractServer {
 public:
  explicit Worker(std::shared_ptr<const Application> application);

 private:
  const std::shared_ptr<const Application> application_;
};

#endif  // WARD_EXAMPLES_SPAWN_SERVER_WORKER_H_
