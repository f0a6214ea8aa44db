// All objects of a class, for code that may run in a signal's handler.

#ifndef WARD_TESTING_SIMULATOR_ENLISTED_H_
#define WARD_TESTING_SIMULATOR_ENLISTED_H_

namespace ward::testing {

// The base of T, whose objects one thread makes and destroys; it, or a handler
// that interrupts it, looks at them.
template <typename T>
class Enlisted {
 public:
  Enlisted(const Enlisted&) = delete;
  Enlisted& operator=(const Enlisted&) = delete;

  static T* First() { return static_cast<T*>(first_); }
  T* Next() const { return static_cast<T*>(next_); }

  // In a fork, where they are nobody's.
  static void ForgetAll() { first_ = nullptr; }

 protected:
  Enlisted() : next_(first_) { first_ = this; }
  ~Enlisted() {
    for (Enlisted** at = &first_; *at != nullptr; at = &(*at)->next_) {
      if (*at != this) continue;
      *at = next_;
      break;
    }
  }

 private:
  static inline Enlisted* first_ = nullptr;
  Enlisted* next_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_ENLISTED_H_
