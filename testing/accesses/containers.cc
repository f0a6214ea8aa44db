// What std::map, std::set, std::list and hashes of strings access in the C++
// library, libstdc++, for code that is instrumented: a map's nodes are linked
// there, and its iterators go from one to the next there. See look.h.

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/accesses/look.h"

#ifdef __GLIBCXX__

using Tree = std::_Rb_tree_node_base;
using List = std::__detail::_List_node_base;
using ::ward::testing::IsInstrumented;
using ::ward::testing::kRead;
using ::ward::testing::kWrite;
using ::ward::testing::Look;

namespace {

template <typename T>
const T& LookAtField(const T& field, uint8_t flags, uintptr_t caller) {
  // NOLINTNEXTLINE(bugprone-sizeof-expression): if it is a link, of that.
  Look(&field, sizeof(T), flags, caller);
  return field;
}

template <typename T>
const T& Read(const T& field, uintptr_t caller) {
  return LookAtField(field, kRead, caller);
}

template <typename T>
void Write(const T& field, uintptr_t caller) {
  LookAtField(field, kWrite, caller);
}

// --- trees ---

using Link = Tree* Tree::*;

// As std::_Rb_tree_increment does it: `ahead` is to the right.
void GoOn(const Tree* node, Link ahead, Link back, uintptr_t caller) {
  if (const Tree* next = Read(node->*ahead, caller)) {
    while (next != nullptr) next = Read(next->*back, caller);
    return;
  }
  const Tree* parent = Read(node->_M_parent, caller);
  while (node == Read(parent->*ahead, caller)) {
    node = parent;
    parent = Read(parent->_M_parent, caller);
  }
}

void GoForward(const Tree* node, uintptr_t caller) {
  GoOn(node, &Tree::_M_right, &Tree::_M_left, caller);
}

// From the end, which is the header, to the last.
void GoBack(const Tree* node, uintptr_t caller) {
  const bool is_end = Read(node->_M_color, caller) == std::_S_red &&
                      Read(node->_M_parent, caller)->_M_parent == node;
  if (is_end) {
    Read(node->_M_right, caller);
  } else {
    GoOn(node, &Tree::_M_left, &Tree::_M_right, caller);
  }
}

// The nodes that balancing may change: those from one to the root, and those
// that are as far below them as it turns.
class Balanced {
 public:
  Balanced(Tree* from, Tree& header) {
    Add(&header, 0);
    for (Tree* node = from; node != &header; node = node->_M_parent) {
      Add(node, kDepth);
    }
    for (size_t i = 1; i < count_; ++i) {
      if (nodes_[i].depth == 0) continue;
      Add(nodes_[i].node->_M_left, nodes_[i].depth - 1);
      Add(nodes_[i].node->_M_right, nodes_[i].depth - 1);
    }
  }

  void LookAtChanges(uintptr_t caller) const {
    for (size_t i = 0; i < count_; ++i) {
      const Tree& now = *nodes_[i].node;
      const Tree& before = nodes_[i].before;
      if (now._M_color != before._M_color) Write(now._M_color, caller);
      if (now._M_parent != before._M_parent) Write(now._M_parent, caller);
      if (now._M_left != before._M_left) Write(now._M_left, caller);
      if (now._M_right != before._M_right) Write(now._M_right, caller);
    }
  }

 private:
  struct Node {
    Tree* node;
    int depth;
    Tree before;
  };

  // Of what is removed from a tree its sibling's children's children are given
  // another parent.
  static constexpr int kDepth = 3;

  // Enough for a path of 40, which takes a million nodes.
  static constexpr size_t kMost = 640;

  void Add(Tree* node, int depth) {
    if (node != nullptr && count_ < kMost) {
      nodes_[count_++] = {node, depth, *node};
    }
  }

  size_t count_ = 0;
  // Of whatever thread runs: one at a time, and none comes in between.
  static std::array<Node, kMost> nodes_;
};

std::array<Balanced::Node, Balanced::kMost> Balanced::nodes_;

// --- lists ---

void LookAtLinks(const List* node, uint8_t flags, uintptr_t caller) {
  Look(node, sizeof(List), flags, caller);
}

void LookAtNeighbours(const List* node, uintptr_t caller) {
  Write(Read(node->_M_next, caller)->_M_prev, caller);
  Write(Read(node->_M_prev, caller)->_M_next, caller);
}

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

#define WARD_WRAP_STEP(function, type, look)                 \
  WARD_WRAP(type*, function, (type * node)) {                \
    if (IsInstrumented(WARD_STACK)) look(node, WARD_CALLER); \
    return __real_##function(node);                          \
  }
WARD_WRAP_STEP(_ZSt18_Rb_tree_incrementPSt18_Rb_tree_node_base, Tree, GoForward)
WARD_WRAP_STEP(_ZSt18_Rb_tree_incrementPKSt18_Rb_tree_node_base, const Tree,
               GoForward)
WARD_WRAP_STEP(_ZSt18_Rb_tree_decrementPSt18_Rb_tree_node_base, Tree, GoBack)
WARD_WRAP_STEP(_ZSt18_Rb_tree_decrementPKSt18_Rb_tree_node_base, const Tree,
               GoBack)

WARD_WRAP(void,
          _ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_,
          (bool left, Tree* node, Tree* parent, Tree& header)) {
  const auto insert =
      __real__ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_;
  if (!IsInstrumented(WARD_STACK)) return insert(left, node, parent, header);
  Read(header._M_parent, WARD_CALLER);
  if (parent != &header) Read(parent->_M_color, WARD_CALLER);
  const Balanced balanced(parent, header);
  insert(left, node, parent, header);
  Look(node, sizeof(Tree), kWrite, WARD_CALLER);
  balanced.LookAtChanges(WARD_CALLER);
}

WARD_WRAP(Tree*, _ZSt28_Rb_tree_rebalance_for_erasePSt18_Rb_tree_node_baseRS_,
          (Tree * node, Tree& header)) {
  const auto erase =
      __real__ZSt28_Rb_tree_rebalance_for_erasePSt18_Rb_tree_node_baseRS_;
  if (!IsInstrumented(WARD_STACK)) return erase(node, header);
  Look(node, sizeof(Tree), kRead, WARD_CALLER);
  // What takes its place comes from below.
  Tree* from = node;
  if (node->_M_left != nullptr && node->_M_right != nullptr) {
    from = node->_M_right;
    while (Read(from->_M_left, WARD_CALLER) != nullptr) from = from->_M_left;
  }
  const Balanced balanced(from, header);
  Tree* const erased = erase(node, header);
  balanced.LookAtChanges(WARD_CALLER);
  return erased;
}

WARD_WRAP(void, _ZNSt8__detail15_List_node_base7_M_hookEPS0_,
          (List * node, List* next)) {
  if (IsInstrumented(WARD_STACK)) {
    LookAtLinks(node, kWrite, WARD_CALLER);
    Write(Read(next->_M_prev, WARD_CALLER)->_M_next, WARD_CALLER);
    Write(next->_M_prev, WARD_CALLER);
  }
  __real__ZNSt8__detail15_List_node_base7_M_hookEPS0_(node, next);
}

WARD_WRAP(void, _ZNSt8__detail15_List_node_base9_M_unhookEv, (List * node)) {
  if (IsInstrumented(WARD_STACK)) LookAtNeighbours(node, WARD_CALLER);
  __real__ZNSt8__detail15_List_node_base9_M_unhookEv(node);
}

WARD_WRAP(void, _ZNSt8__detail15_List_node_base11_M_transferEPS0_S1_,
          (List * to, List* first, List* last)) {
  if (IsInstrumented(WARD_STACK) && to != last) {
    for (List* const node : {first, last, to}) {
      Write(Read(node->_M_prev, WARD_CALLER)->_M_next, WARD_CALLER);
      Write(node->_M_prev, WARD_CALLER);
    }
  }
  __real__ZNSt8__detail15_List_node_base11_M_transferEPS0_S1_(to, first, last);
}

WARD_WRAP(void, _ZNSt8__detail15_List_node_base10_M_reverseEv, (List * list)) {
  if (IsInstrumented(WARD_STACK)) {
    const List* node = list;
    do {
      LookAtLinks(node, kWrite, WARD_CALLER);
      node = node->_M_next;
    } while (node != list);
  }
  __real__ZNSt8__detail15_List_node_base10_M_reverseEv(list);
}

WARD_WRAP(void, _ZNSt8__detail15_List_node_base4swapERS0_S1_,
          (List & one, List& other)) {
  if (IsInstrumented(WARD_STACK)) {
    for (const List* const list : {&one, &other}) {
      LookAtNeighbours(list, WARD_CALLER);
      LookAtLinks(list, kWrite, WARD_CALLER);
    }
  }
  __real__ZNSt8__detail15_List_node_base4swapERS0_S1_(one, other);
}

WARD_WRAP(size_t, _ZSt11_Hash_bytesPKvmm,
          (const void* bytes, size_t size, size_t seed)) {
  if (IsInstrumented(WARD_STACK)) Look(bytes, size, kRead, WARD_CALLER);
  return __real__ZSt11_Hash_bytesPKvmm(bytes, size, seed);
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"

#endif  // __GLIBCXX__
