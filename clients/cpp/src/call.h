#pragma once

#include <memory>

#include "tandem/stream.h"
#include "tandem/v1/generation_service.grpc.pb.h"

namespace tandem {

// What a stream holds. The context has to outlive the reader.
struct Stream::Call {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::StreamGenerateResponse>> reader;
  bool ended = false;
};

}  // namespace tandem
