// For each 8 bytes of memory, who has accessed them in this run, as far as it
// may still matter.

#ifndef WARD_TESTING_ACCESSES_SHADOW_H_
#define WARD_TESTING_ACCESSES_SHADOW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ward::testing {

enum AccessFlags : uint8_t {
  kRead = 0,
  kWrite = 1,
  kAtomic = 2,
  // The memory was given back.
  kFreed = 4,
  // It is known of a function that was called, as to lock what is there; a
  // write destroys it.
  kCalled = 8,
};

// Of a cell.
constexpr uint8_t kAllBytes = 0xff;

struct Access {
  // Of the thread's clock.
  uint32_t tick;
  uint16_t thread;
  // Which of the 8 bytes, a bit for each.
  uint8_t bytes;
  uint8_t flags;
  // What is under way, and the locks that are held: AccessChecker keeps these.
  uint32_t calls;
  uint32_t locks;
  uintptr_t address;
};

// Zero is an empty one.
class Cell {
 public:
  size_t size() const { return size_; }
  Access& operator[](size_t i) {
    return i < first_.size() ? first_[i] : rest_[i - first_.size()];
  }
  void Resize(size_t size) { size_ = static_cast<uint16_t>(size); }
  void Append(const Access& access) {
    if (size_ >= first_.size() + room_) Grow();
    (*this)[size_++] = access;
  }

  // Of which run it is.
  uint32_t run = 0;
  // Something that orders threads begins in it, see AccessChecker.
  bool has_object = false;

  void Free();

 private:
  void Grow();

  // Most have one or two.
  std::array<Access, 3> first_;
  Access* rest_;
  uint16_t room_;
  uint16_t size_;
};

class Shadow {
 public:
  static constexpr size_t kCellSize = 8;

  // Begins empty.
  void BeginRun();

  // The cell of an address; null where there is no room for it.
  Cell* Find(uintptr_t address) {
    Page* page = last_page_;
    if (address / kPageSize != last_) {
      page = FindPage(address);
      if (page == nullptr) return nullptr;
      last_ = address / kPageSize;
      last_page_ = page;
    }
    page->run = run_;
    Cell& cell = page->cells[address % kPageSize / kCellSize];
    if (cell.run != run_) {
      cell.run = run_;
      cell.has_object = false;
      cell.Resize(0);
    }
    return &cell;
  }

  // Calls `visit(address, cell)` for each cell of a range that is not empty.
  template <typename Visit>
  void ForEach(uintptr_t begin, uintptr_t end, Visit visit) {
    begin -= begin % kCellSize;
    while (begin < end) {
      const uintptr_t next = begin - begin % kPageSize + kPageSize;
      Page* const page = KnownPage(begin);
      if (page == nullptr && Table(begin) == nullptr) {
        begin = begin - begin % kTableSize + kTableSize;
        continue;
      }
      if (page != nullptr && page->run == run_) {
        for (; begin < end && begin < next; begin += kCellSize) {
          Cell& cell = page->cells[begin % kPageSize / kCellSize];
          if (cell.run == run_) visit(begin, cell);
        }
      }
      begin = next;
    }
  }

  // Whether some memory was not looked at, for want of room.
  bool is_full() const { return is_full_; }

 private:
  // Two levels: user space has 47 bits of addresses (x86-64's, and as many as
  // arm64 has where it matters).
  static constexpr size_t kPageSize = 4096;
  static constexpr size_t kTableSize = size_t{1} << 30;
  static constexpr size_t kTables = (size_t{1} << 48) / kTableSize;
  static constexpr size_t kPagesOfTable = kTableSize / kPageSize;
  // 32 MB, whose cells take 400 MB.
  static constexpr size_t kMostPages = 8192;

  struct Page {
    uint32_t run;
    std::array<Cell, kPageSize / kCellSize> cells;
  };
  using PageTable = std::array<Page*, kPagesOfTable>;

  PageTable*& Table(uintptr_t address) { return tables_[address / kTableSize]; }
  Page* KnownPage(uintptr_t address) {
    if (address / kTableSize >= kTables) return nullptr;
    PageTable* const table = Table(address);
    return table == nullptr ? nullptr
                            : (*table)[address % kTableSize / kPageSize];
  }
  Page* FindPage(uintptr_t address);
  // One of an earlier run, which is no more where it was; null if there is
  // none.
  Page* Reuse();

  std::array<PageTable*, kTables> tables_{};
  // Where each page that there is stands in its table.
  std::vector<Page**> pages_;
  // Those before are of this run, where there are as many as there may be.
  size_t next_to_reuse_ = 0;
  uintptr_t last_ = ~uintptr_t{0};
  Page* last_page_ = nullptr;
  uint32_t run_ = 0;
  bool is_full_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_ACCESSES_SHADOW_H_
