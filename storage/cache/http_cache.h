// A binary cache behind HTTP PUT: nginx dav, or anything alike.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/cache/blob_store.h"
#include "storage/cache/http_client.h"

namespace nixq {

// `base_url` is http:// or https://, with or without a trailing slash and
// without user, query or fragment, and so is the proxy, which may have a user
// (INVALID_ARGUMENT). `client` must outlive
// the store.
absl::StatusOr<std::unique_ptr<BlobStore>> MakeHttpStore(
    const std::string& base_url, const HttpOptions& options,
    HttpClient& client);

}  // namespace nixq
