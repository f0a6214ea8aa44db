// To be linked, and nothing more: see AbstractServer::DescriptorSet().

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "ward/server/descriptor_source.h"

namespace ward::internal {
namespace {

// Imports first: so the files can be read one after the other.
void AddFile(const google::protobuf::FileDescriptor& file,
             absl::flat_hash_set<const google::protobuf::FileDescriptor*>& seen,
             std::vector<std::string>& files) {
  if (!seen.insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) {
    AddFile(*file.dependency(i), seen, files);
  }
  google::protobuf::FileDescriptorSet alone;
  google::protobuf::FileDescriptorProto& copy = *alone.add_file();
  file.CopyTo(&copy);
  file.CopyJsonNameTo(&copy);
  files.push_back(alone.SerializeAsString());
}

std::vector<std::string> FilesOf(absl::Span<const std::string> types) {
  const google::protobuf::DescriptorPool& pool =
      *google::protobuf::DescriptorPool::generated_pool();
  absl::flat_hash_set<const google::protobuf::FileDescriptor*> seen;
  std::vector<std::string> files;
  for (const std::string& type : types) {
    const google::protobuf::Descriptor* const found =
        pool.FindMessageTypeByName(type);
    if (found != nullptr) AddFile(*found->file(), seen, files);
  }
  return files;
}

[[maybe_unused]] const bool kLinked = [] {
  descriptor_source = &FilesOf;
  return true;
}();

}  // namespace
}  // namespace ward::internal
