#include "ward/testing/accesses/shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace ward::testing {
namespace {

void* FreshMemory(size_t size) {
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

void Cell::Grow() {
  const auto room = static_cast<uint16_t>(std::max(4, 2 * room_));
  rest_ = static_cast<Access*>(std::realloc(rest_, room * sizeof(Access)));
  if (rest_ == nullptr) std::abort();
  room_ = room;
}

void Cell::Free() { std::free(rest_); }

void Shadow::BeginRun() {
  ++run_;
  is_full_ = false;
  next_to_reuse_ = 0;
  // Other runs had memory at other addresses.
  if (pages_.size() < kMostPages / 2) return;
  for (Page** const place : pages_) {
    for (Cell& cell : (*place)->cells) cell.Free();
    munmap(*place, sizeof(Page));
    *place = nullptr;
  }
  pages_.clear();
  last_ = ~uintptr_t{0};
}

Shadow::Page* Shadow::FindPage(uintptr_t address) {
  if (Page* const known = KnownPage(address)) return known;
  if (address / kTableSize >= kTables) return nullptr;
  PageTable*& table = Table(address);
  if (table == nullptr) {
    table = static_cast<PageTable*>(FreshMemory(sizeof(PageTable)));
    if (table == nullptr) return nullptr;
  }
  Page*& place = (*table)[address % kTableSize / kPageSize];
  if (pages_.size() < kMostPages) {
    auto* const page = static_cast<Page*>(FreshMemory(sizeof(Page)));
    if (page == nullptr) return nullptr;
    pages_.push_back(&place);
    return place = page;
  }
  Page* const page = Reuse();
  if (page == nullptr) {
    is_full_ = true;
    return nullptr;
  }
  pages_[next_to_reuse_++] = &place;
  return place = page;
}

Shadow::Page* Shadow::Reuse() {
  while (next_to_reuse_ < pages_.size() &&
         (*pages_[next_to_reuse_])->run == run_) {
    ++next_to_reuse_;
  }
  if (next_to_reuse_ == pages_.size()) return nullptr;
  Page* const page = std::exchange(*pages_[next_to_reuse_], nullptr);
  if (page == last_page_) last_ = ~uintptr_t{0};
  return page;
}

}  // namespace ward::testing
