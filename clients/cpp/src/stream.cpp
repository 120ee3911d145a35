#include "tandem/stream.h"

#include "call.h"
#include "tandem/error.h"

namespace tandem {

Stream::Stream(std::unique_ptr<Call> call) : call_(std::move(call)) {}

Stream::Stream(Stream&&) noexcept = default;

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(call_, other.call_);  // the other ends what this one held
  return *this;
}

Stream::~Stream() {
  if (!call_ || call_->ended) return;
  call_->context.TryCancel();
  call_->reader->Finish();
}

std::optional<v1::StreamGenerateResponse> Stream::next() {
  if (call_->ended) return std::nullopt;
  v1::StreamGenerateResponse event;
  if (call_->reader->Read(&event)) return event;
  call_->ended = true;
  const grpc::Status status = call_->reader->Finish();
  if (!status.ok()) throw Error(status);
  return std::nullopt;
}

void Stream::cancel() { call_->context.TryCancel(); }

}  // namespace tandem
