#include "ward/tools/wardctl/printable.h"

#include <locale.h>
#include <wchar.h>
#include <wctype.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace ward::ctl {
namespace {

// The C library's own since glibc 2.35, and Debian's since ever. Null where it
// is not: then all but ASCII is escaped.
locale_t Utf8() {
  static const locale_t kUtf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return kUtf8;
}

}  // namespace

std::string Printable(std::string_view bytes) {
  const locale_t before = Utf8() == nullptr ? nullptr : uselocale(Utf8());
  std::string text;
  while (!bytes.empty()) {
    mbstate_t state{};
    wchar_t character = 0;
    // NUL is 0 bytes long to it, and what is no character is more than all.
    // With a state of its own it is thread-safe.
    // NOLINTNEXTLINE(concurrency-mt-unsafe)
    const size_t size = mbrtowc(&character, bytes.data(), bytes.size(), &state);
    if (size == 0 || size > bytes.size() || iswprint(character) == 0) {
      absl::StrAppend(&text, absl::CHexEscape(bytes.substr(0, 1)));
      bytes.remove_prefix(1);
      continue;
    }
    if (character == L'\\') text += '\\';
    absl::StrAppend(&text, bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  if (before != nullptr) uselocale(before);
  return text;
}

}  // namespace ward::ctl
