# Abseil, protobuf and, for WARD_BUILD_TESTING, GoogleTest: found, or fetched.

function(ward_fetch_dependencies)
  include(FetchContent)
  # FetchContent_Declare for each, with the archives of deps.bzl.
  execute_process(
    COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/build_files.py archives
    OUTPUT_FILE ${PROJECT_BINARY_DIR}/archives.cmake
    COMMAND_ERROR_IS_FATAL ANY)
  include(${PROJECT_BINARY_DIR}/archives.cmake)

  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW) # Their options are what is set here.
  set(BUILD_SHARED_LIBS OFF)
  set(CMAKE_CXX_STANDARD 17)
  set(CMAKE_CXX_STANDARD_REQUIRED ON)
  set(ABSL_ENABLE_INSTALL ${WARD_INSTALL})
  set(ABSL_PROPAGATE_CXX_STD ON)
  set(INSTALL_GTEST ${WARD_INSTALL})
  set(protobuf_BUILD_TESTS OFF)
  set(protobuf_INSTALL ${WARD_INSTALL})
  set(protobuf_WITH_ZLIB OFF)
  if(WARD_PROTOC)
    set(protobuf_BUILD_PROTOC_BINARIES OFF)
  endif()
  FetchContent_MakeAvailable(absl protobuf)
  if(WARD_BUILD_TESTING)
    FetchContent_MakeAvailable(googletest)
  endif()
endfunction()

function(ward_check_absl)
  include(CheckCXXSourceCompiles)
  set(CMAKE_CXX_STANDARD 17)
  set(CMAKE_REQUIRED_LIBRARIES absl::strings)
  check_cxx_source_compiles("
    #include <string>
    #include <string_view>
    #include \"absl/strings/str_cat.h\"
    int main() { return absl::StrCat(std::string_view(\"a\")).size() == 1 ? 0 : 1; }
    static_assert(std::is_same_v<absl::string_view, std::string_view>);"
    WARD_ABSL_FITS)
  if(NOT WARD_ABSL_FITS)
    unset(WARD_ABSL_FITS CACHE)
    message(FATAL_ERROR
      "The Abseil in ${absl_DIR} was not compiled as C++17, or has types of its own in the "
      "place of C++17's, as Debian's libabsl-dev has. Install another and name it in "
      "CMAKE_PREFIX_PATH, or have it built with ward: -DWARD_FETCH_DEPENDENCIES=ON.")
  endif()
endfunction()

if(WARD_FETCH_DEPENDENCIES)
  ward_fetch_dependencies()
else()
  message(STATUS "Looking for what ward depends on; -DWARD_FETCH_DEPENDENCIES=ON fetches it")
  # What a package says of itself, rather than what CMake knows of some versions.
  set(CMAKE_FIND_PACKAGE_PREFER_CONFIG ON)
  find_package(absl REQUIRED)
  find_package(Protobuf REQUIRED)
  if(WARD_BUILD_TESTING)
    find_package(GTest REQUIRED)
  endif()
  ward_check_absl()
endif()

if(TARGET protobuf::protoc)
  set(WARD_PROTOC protobuf::protoc)
else()
  find_program(WARD_PROTOC protoc REQUIRED DOC "protobuf's compiler, of the library's version")
endif()
