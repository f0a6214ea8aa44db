#include "ward/testing/report/picture.h"

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "ward/testing/report/run_events.h"

namespace ward::testing {
namespace {

// picture.html, as a string: see the BUILD file.
constexpr std::string_view kPage =
#include "testing/report/picture_html.inc"
    ;

constexpr std::string_view kPlaceOfData = "WARD_DATA";

}  // namespace

std::string DrawPicture(const PictureCaption& caption,
                        std::string_view events) {
  const size_t at = kPage.find(kPlaceOfData);
  return absl::StrCat(
      kPage.substr(0, at), R"({"test":)", JsonString(caption.test),
      R"(,"what":)", JsonString(caption.what), R"(,"command":)",
      JsonString(caption.command), R"(,"doom":)", caption.doom, R"(,"run":)",
      events, "}", kPage.substr(at + kPlaceOfData.size()));
}

}  // namespace ward::testing
