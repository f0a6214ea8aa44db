// A run that failed, as a page of HTML: threads and processes are lanes, time
// runs down, and what a browser shows of it can be searched, folded, and asked
// for the source's lines.
//
// The page is one file that needs no other, and asks no network. What it shows
// may come from a peer: it is text to the page, whatever it says.

#ifndef WARD_TESTING_REPORT_PICTURE_H_
#define WARD_TESTING_REPORT_PICTURE_H_

#include <string>
#include <string_view>

namespace ward::testing {

struct PictureCaption {
  // Which test it is, why it failed, and the command that runs it again.
  std::string test;
  std::string what;
  std::string command;
  // Where it was doomed: Doom::ToJson()'s, of testing/search/doom.h.
  std::string doom = "null";
};

// `events` is RunEvents::ToJson()'s.
std::string DrawPicture(const PictureCaption& caption, std::string_view events);

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_PICTURE_H_
